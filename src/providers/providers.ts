import { createAnthropicProvider } from './anthropic-provider.ts'
import { createGeminiProvider } from './gemini-provider.ts'
import { createJsonProvider, type JsonPointers } from './json-provider.ts'
import { createOllamaProvider } from './ollama-provider.ts'
import { createOpenaiProvider } from './openai-provider.ts'
import type { Protocol, Provider } from './provider.ts'
import type { AuthForm } from './target.ts'

/** What is known of an endpoint's protocol. */
export interface ProviderSettings {
  readonly protocol: Protocol
  /** How the credential is shown; undefined for the protocol's own way. */
  readonly auth?: AuthForm
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
  const { protocol, auth, asksForUsage = true, defaultMaxOutputTokens, pointers = {} } = settings
  switch (protocol) {
    case 'openai':
      return createOpenaiProvider({ protocol, auth: auth ?? 'bearer', asksForUsage })
    case 'azure_openai':
      return createOpenaiProvider({ protocol, auth: auth ?? 'api-key', asksForUsage })
    case 'anthropic':
      return createAnthropicProvider({ auth: auth ?? 'x-api-key', defaultMaxOutputTokens })
    case 'gemini':
      return createGeminiProvider(auth ?? 'x-goog-api-key')
    case 'ollama':
      return createOllamaProvider(auth ?? 'bearer')
    case 'json':
      return createJsonProvider(auth ?? 'bearer', pointers)
  }
}
