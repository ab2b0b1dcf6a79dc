import { createAnthropicProvider } from './anthropic-provider.ts'
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
}

/** The adapter of a protocol. It holds no state: one serves all calls of all endpoints with the same settings. */
export function createProvider(settings: ProviderSettings): Provider {
  const { protocol, asksForUsage = true } = settings
  switch (protocol) {
    case 'anthropic':
      return createAnthropicProvider({
        auth: settings.auth ?? 'x-api-key',
        defaultMaxOutputTokens: settings.defaultMaxOutputTokens,
      })
    case 'openai':
      return createOpenaiProvider({ protocol, auth: settings.auth ?? 'bearer', asksForUsage })
    case 'azure_openai':
      return createOpenaiProvider({ protocol, auth: settings.auth ?? 'api-key', asksForUsage })
  }
}
