import { createAnthropicProvider } from './anthropic-provider.ts'
import { createGeminiProvider } from './gemini-provider.ts'
import { createGrpcProvider } from './grpc-provider.ts'
import { createJsonProvider, type JsonPointers } from './json-provider.ts'
import { createOllamaProvider } from './ollama-provider.ts'
import { createOpenaiProvider } from './openai-provider.ts'
import type { Protocol, Provider } from './provider.ts'

/** What is known of a service's protocol. */
export interface ProviderSettings {
  readonly protocol: Protocol
  /** False for an OpenAI-compatible backend that refuses `stream_options`; true by default. */
  readonly asksForUsage?: boolean
  /** Output that a translated request asks for which sets no limit, where the protocol requires one. */
  readonly defaultMaxOutputTokens: number
  /** Where plain JSON tells usage; without any, it is estimated. */
  readonly pointers?: JsonPointers
}

/**
 * The adapter of a protocol. It holds no state: one serves all calls of all endpoints with the same settings. Throws
 * INVALID_ARGUMENT for a pointer that is none.
 */
export function createProvider(settings: ProviderSettings): Provider {
  const { protocol, asksForUsage = true, defaultMaxOutputTokens, pointers = {} } = settings
  switch (protocol) {
    case 'openai':
    case 'azure_openai':
      return createOpenaiProvider({ protocol, asksForUsage })
    case 'anthropic':
      return createAnthropicProvider({ defaultMaxOutputTokens })
    case 'gemini':
      return createGeminiProvider()
    case 'ollama':
      return createOllamaProvider()
    case 'json':
      return createJsonProvider(pointers)
    case 'grpc':
      return createGrpcProvider()
  }
}
