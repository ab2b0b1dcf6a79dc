import type { OutsideRegistrySettings } from '../config/registry.ts'
import type { Config } from '../config.ts'
import { isLoopback } from '../config-parsers.ts'
import { createRegistryClient } from '../registrations/registry-client.ts'
import { RegistryError } from '../registrations/registry-error.ts'
import type { Finding } from './doctor.ts'
import { failed, ok, warning } from './findings.ts'

const timeoutMs = 10_000

/** Asks the outside registry for its list, as the gate does, and looks at what belongs to it. */
export async function lookAtRegistry({ registry, credentials }: Config): Promise<readonly Finding[]> {
  const { outside, gateUrl } = registry
  if (outside === undefined) return [ok('not configured')]
  return [await readList(outside), ...settingsOf(outside, gateUrl), ...missingCredentials(outside, credentials)]
}

async function readList(outside: OutsideRegistrySettings): Promise<Finding> {
  const client = createRegistryClient(outside)
  try {
    const { entries, nameless } = await client.list(AbortSignal.timeout(timeoutMs))
    if (nameless === 0) return ok(`${outside.url} lists ${entries.length} services`)
    return warning(`${outside.url} lists ${nameless} things that are no services`, 'Mend what the registry answers.')
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
    const detail = `${outside.url}: ${error.message}`
    if (error.kind === 'key') return failed(detail, 'Set REGISTRY_API_KEY to a key that may list services there.')
    if (error.kind !== 'unsupported') return failed(detail, 'Check REGISTRY_URL, the registry, and the way to it.')
    return outside.isSource
      ? failed(`${detail}: it lists no services`, 'Check REGISTRY_URL, or set REGISTRY_MODE=publish.')
      : warning(`${detail}: it lists no services`, 'What it loses is not told again: replay the sink "registry".')
  } finally {
    await client.close()
  }
}

function settingsOf({ url, isTold }: OutsideRegistrySettings, gateUrl: string | undefined): Finding[] {
  const { protocol, hostname } = new URL(url)
  const found: Finding[] = []
  if (protocol === 'http:' && !isLoopback(hostname)) {
    found.push(warning('REGISTRY_API_KEY is sent in clear', 'Use https:// where others are on the way.'))
  }
  if (isTold && gateUrl === undefined) {
    const remedy = 'Set ADVERTISED_URL: a Tollgate takes no registration without an endpoint.'
    found.push(warning('services are registered without a way to call them', remedy))
  }
  return found
}

function missingCredentials(
  { credentials }: OutsideRegistrySettings,
  known: Readonly<Record<string, string | undefined>>,
): Finding[] {
  return credentials.flatMap(({ origin, reference }) => {
    if (!reference.startsWith('env:') || known[reference.slice(4)]) return []
    return [failed(`${origin} has no credential: ${reference} is not set`, 'See REGISTRY_ENDPOINT_CREDENTIALS.')]
  })
}
