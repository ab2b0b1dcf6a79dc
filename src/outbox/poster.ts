import { Agent, request } from 'undici'
import { parseRetryAfter } from '../routing/retry-policy.ts'
import { describeError } from '../storage/postgres.ts'
import type { Delivery } from './outbox-sink.ts'

export interface PosterOptions {
  readonly url: string
  /** Longest wait for an answer, in milliseconds. */
  readonly timeoutMs: number
  /** Connections. */
  readonly concurrency: number
  /** Unix milliseconds. */
  readonly now: () => number
}

/** Posts what goes out to one URL. */
export interface Poster {
  /** What came of it, by the status of the answer; held back when the signal ended it. Never rejects. */
  post(headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal): Promise<Delivery>
  /** Cuts every connection. */
  close(): Promise<void>
}

/** The receiver refuses what this event is, whenever it comes. */
const finalStatuses: ReadonlySet<number> = new Set([400, 413, 415, 422])
/** An answer says all in its status; more than this of its body is not waited for. */
const answerMaxBytes = 65_536

/** Redirects are not followed: what is sent is for the URL that was configured. */
export function createPoster(options: PosterOptions): Poster {
  const { url, timeoutMs, concurrency, now } = options
  const agent = new Agent({ connections: concurrency, connect: { timeout: timeoutMs } })
  return {
    async post(headers, body, signal) {
      const ceiling = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
      try {
        const answer = await request(url, { method: 'POST', headers, body, dispatcher: agent, signal: ceiling })
        await answer.body.dump({ limit: answerMaxBytes, signal: ceiling })
        const { statusCode: status } = answer
        if (status >= 200 && status < 300) return 'delivered'
        const retryAfterMs = parseRetryAfter(answer.headers['retry-after'], now())
        return { reason: `HTTP ${status}`, isFinal: finalStatuses.has(status), retryAfterMs }
      } catch (error) {
        // Given up by us: nobody knows whether it arrived, and it is no fault of the receiver.
        if (signal.aborted) return 'held_back'
        const reason = ceiling.aborted ? `no answer within ${timeoutMs} ms` : describeError(error)
        return { reason, isFinal: false, retryAfterMs: undefined }
      }
    },
    close: () => agent.destroy(),
  }
}
