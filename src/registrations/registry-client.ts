/**
 * A client for reference 004 §6.1, and for the routes that a Tollgate serves beside it: `/api/v1/services` of an outside
 * registry, with `X-API-Key`. Nothing of what the registry answers is believed before it was looked at, nothing of it gets
 * into an error, and no redirect is followed: the key is for the URL that was configured.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Agent, type Dispatcher, request } from 'undici'
import { parseRetryAfter } from '../routing/retry-policy.ts'
import { describeError } from '../storage/postgres.ts'
import { type ListedEntry, listedPage } from './listed-entry.ts'
import type { ServiceRegistration } from './registration.ts'
import { failureOfStatus, RegistryError } from './registry-error.ts'

export interface RegistryClientOptions {
  /** Base of the registry's routes, without a slash at its end. */
  readonly url: string
  readonly apiKey: string
  /** Longest wait for an answer, in milliseconds; default 10 000. */
  readonly timeoutMs?: number
  /** Requests at once; default 4. */
  readonly connections?: number
  /** First pause between two attempts at a page of a list, in milliseconds; default 200. */
  readonly retryMinMs?: number
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

/** All methods throw {@link RegistryError}; or the signal's reason. */
export interface RegistryClient {
  /** All services that the registry lists, or those of a name and version. A page that fails is attempted three times. */
  list(signal: AbortSignal, which?: { readonly name: string; readonly version: string }): Promise<Listing>
  add(registration: ServiceRegistration, signal: AbortSignal): Promise<void>
  replace(id: string, registration: ServiceRegistration, signal: AbortSignal): Promise<void>
  /** Cuts every connection. */
  close(): Promise<void>
}

export interface Listing {
  readonly entries: readonly ListedEntry[]
  /** How many things in the list were no entries. */
  readonly nameless: number
}

const attempts = 3
const pageSize = 200
const answerMaxBytes = 8_388_608
/** More than this is no catalog that a gate should hold. */
const entriesMax = 10_000
/** A registry that wants a longer pause is asked again at the next look. */
const pauseMaxMs = 5_000

export function createRegistryClient(options: RegistryClientOptions): RegistryClient {
  const { url, apiKey, timeoutMs = 10_000, connections = 4, retryMinMs = 200 } = options
  const { random = Math.random, now = Date.now } = options
  const base = `${url}/api/v1/services`
  const agent = new Agent({ connections, connect: { timeout: timeoutMs } })
  const headers = { accept: 'application/json', 'x-api-key': apiKey }

  async function ask(
    method: Dispatcher.HttpMethod,
    target: string,
    body: string,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const ceiling = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
    try {
      const answer = await request(target, {
        method,
        headers: body === '' ? headers : { ...headers, 'content-type': 'application/json' },
        ...(body !== '' && { body }),
        dispatcher: agent,
        signal: ceiling,
      })
      const failure = failureOfStatus(answer.statusCode, parseRetryAfter(answer.headers['retry-after'], now()))
      if (failure === undefined) return await whole(answer.body)
      // Only for the connection, so that it can be used again.
      await answer.body.dump({ limit: answerMaxBytes, signal: ceiling }).catch(() => {})
      throw failure
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof RegistryError) throw error
      throw new RegistryError('failed', ceiling.aborted ? `no answer within ${timeoutMs} ms` : describeError(error))
    }
  }

  async function page(target: string, signal: AbortSignal) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const read = listedPage(parsed(await ask('GET', target, '', signal)))
        if (read === undefined) throw new RegistryError('failed', 'its answer is no list of services')
        return read
      } catch (error) {
        if (!(error instanceof RegistryError) || error.kind !== 'failed' || attempt === attempts) throw error
        const pauseMs = Math.max(error.retryAfterMs ?? 0, retryMinMs * 2 ** (attempt - 1) * (0.5 + random() / 2))
        if (pauseMs > pauseMaxMs) throw error
        await delay(pauseMs, undefined, { signal, ref: false })
      }
    }
  }

  return {
    async list(signal, which) {
      const entries: ListedEntry[] = []
      const tokens = new Set<string>()
      let nameless = 0
      for (let token = ''; ; ) {
        const query = new URLSearchParams({
          page_size: String(pageSize),
          ...which,
          ...(token && { page_token: token }),
        })
        const read = await page(`${base}?${query}`, signal)
        entries.push(...read.entries)
        nameless += read.nameless
        if (entries.length + nameless > entriesMax) {
          throw new RegistryError('failed', `it lists more than ${entriesMax} services`)
        }
        token = read.nextPageToken
        if (token === '') return { entries, nameless }
        if (tokens.has(token)) throw new RegistryError('failed', 'its list has no end: a page comes again')
        tokens.add(token)
      }
    },
    async add(registration, signal) {
      await ask('POST', base, JSON.stringify(registration), signal)
    },
    async replace(id, registration, signal) {
      await ask('PUT', `${base}/${encodeURIComponent(id)}`, JSON.stringify(registration), signal)
    },
    close: () => agent.destroy(),
  }
}

async function whole(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > answerMaxBytes) throw new RegistryError('failed', `its answer has more than ${answerMaxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The parser's own words quote the answer. */
function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new RegistryError('failed', 'its answer is no JSON')
  }
}
