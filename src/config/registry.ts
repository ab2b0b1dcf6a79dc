import type { OriginCredential } from '../config-parsers.ts'
import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** Services of other installations, and those of this one there. */
export const registryVariables = {
  registryUrl: optional(is.url('http', 'https'), {
    name: 'REGISTRY_URL',
    group: 'Registry',
    description:
      'Outside LLM-Registry, another Tollgate for example; `/api/v1/services` is added to it. See [registry](registry.md#an-outside-registry).',
  }),
  registryApiKey: optional(is.secret(1), {
    name: 'REGISTRY_API_KEY',
    group: 'Registry',
    secret: true,
    description: 'What REGISTRY_URL is shown as `x-api-key`.',
  }),
  registryMode: setting(is.oneOf('publish', 'source', 'both'), {
    name: 'REGISTRY_MODE',
    group: 'Registry',
    default: 'publish',
    description:
      'What REGISTRY_URL is for: `publish` registers the services of this gate there, `source` takes over the services that it lists, `both` does both.',
  }),
  registryIntervalSeconds: setting(is.integer(1, 86_400), {
    name: 'REGISTRY_INTERVAL_SECONDS',
    group: 'Registry',
    default: 30,
    description: 'Pause between two looks at REGISTRY_URL, in seconds, a tenth shorter or longer.',
  }),
  registryGoneShare: setting(is.decimal(0, 1), {
    name: 'REGISTRY_GONE_SHARE',
    group: 'Registry',
    default: 0.2,
    description:
      'Share of the services taken over from REGISTRY_URL that may be missing from its list. When more are missing, none of them is touched: the list counts as broken. One may always be missing, unless the list is empty; `1` believes every list.',
  }),
  registryCredentials: setting(is.credentialsByOrigin, {
    name: 'REGISTRY_ENDPOINT_CREDENTIALS',
    group: 'Registry',
    secret: true,
    default: [],
    description:
      'Credentials for the endpoints of services taken over from REGISTRY_URL: `origin=reference` pairs separated by commas, such as `https://api.example.com=env:EXAMPLE_KEY`. To other origins no credential is sent.',
  }),
  advertisedUrl: optional(is.origin, {
    name: 'ADVERTISED_URL',
    group: 'Registry',
    description:
      'Address at which others reach this gate, such as `https://gate.example`. Registries, and callers who do not see endpoints, are told it as the endpoint of the services of this gate.',
  }),
} as const

/** What this gate is to others, and the registry that it follows. */
export interface RegistrySettings {
  /** Undefined: there is none. */
  readonly outside: OutsideRegistrySettings | undefined
  /** Address of this gate for others; undefined: nobody is told one. */
  readonly gateUrl: string | undefined
  /** Names this installation. */
  readonly source: string
}

/** An LLM-Registry elsewhere. */
export interface OutsideRegistrySettings {
  /** Base of its routes. */
  readonly url: string
  readonly apiKey: string
  /** Whether services are registered there, and whether those that it lists are taken over. */
  readonly isTold: boolean
  readonly isSource: boolean
  readonly everyMs: number
  /** Share of what was taken over that a list may lack. */
  readonly goneShare: number
  readonly credentials: readonly OriginCredential[]
}

/** `source` is that of the events: an installation has one name. */
export function readRegistry(from: SettingsReader, source: string): RegistrySettings {
  return { outside: readOutside(from), gateUrl: from.read(registryVariables.advertisedUrl), source }
}

function readOutside(from: SettingsReader): OutsideRegistrySettings | undefined {
  const url = from.read(registryVariables.registryUrl)
  const apiKey = from.read(registryVariables.registryApiKey)
  const mode = from.read(registryVariables.registryMode)
  const everyMs = from.read(registryVariables.registryIntervalSeconds) * 1_000
  const goneShare = from.read(registryVariables.registryGoneShare)
  const credentials = from.read(registryVariables.registryCredentials)
  if ((url === undefined) !== (apiKey === undefined))
    from.refuse(
      url === undefined ? registryVariables.registryUrl : registryVariables.registryApiKey,
      'is missing while the other one of REGISTRY_URL and REGISTRY_API_KEY is set',
      'Set both or none',
    )
  if (url === undefined || apiKey === undefined) return undefined
  return {
    url: url.replace(/\/+$/, ''),
    apiKey,
    isTold: mode !== 'source',
    isSource: mode !== 'publish',
    everyMs,
    goneShare,
    credentials,
  }
}
