import { Agent, request } from 'undici'
import { parseRetryAfter } from '../routing/retry-policy.ts'
import { describeError } from '../storage/postgres.ts'
import { cloudEventContentType, type DomainEvent } from './domain-event.ts'
import type { Delivery, DeliveryFailure, OutboxSink } from './outbox-sink.ts'
import { signatureHeaders } from './webhook-signature.ts'

export interface WebhookSinkOptions {
  readonly url: string
  /** Signs what is sent. */
  readonly key: Buffer
  /** Longest wait for an answer, in milliseconds; default 10 000. */
  readonly timeoutMs?: number
  /** Requests at once; default 8. */
  readonly concurrency?: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

/** The receiver refuses what this event is, whenever it comes. */
const finalStatuses: ReadonlySet<number> = new Set([400, 413, 415, 422])
/** An answer says all in its status; more than this of its body is not waited for. */
const answerMaxBytes = 65_536

/**
 * Posts each event as one JSON document. Any answer of class 2 is a receipt. Redirects are not followed: the signature is for
 * the URL that was configured.
 */
export function createWebhookSink(options: WebhookSinkOptions): OutboxSink {
  const { url, key, timeoutMs = 10_000, concurrency = 8, now = Date.now } = options
  const agent = new Agent({ connections: concurrency, connect: { timeout: timeoutMs } })

  async function post(event: DomainEvent, signal: AbortSignal): Promise<Delivery> {
    const body = JSON.stringify(event)
    const headers = { 'content-type': cloudEventContentType, ...signatureHeaders(key, event.id, now(), body) }
    const ceiling = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
    try {
      const answer = await request(url, { method: 'POST', headers, body, dispatcher: agent, signal: ceiling })
      await answer.body.dump({ limit: answerMaxBytes, signal: ceiling })
      if (answer.statusCode >= 200 && answer.statusCode < 300) return 'delivered'
      return {
        reason: `HTTP ${answer.statusCode}`,
        isFinal: finalStatuses.has(answer.statusCode),
        retryAfterMs: parseRetryAfter(answer.headers['retry-after'], now()),
      }
    } catch (error) {
      // Given up by us: nobody knows whether it arrived, and it is no fault of the receiver.
      if (signal.aborted) return 'held_back'
      return failure(ceiling.aborted ? `no answer within ${timeoutMs} ms` : describeError(error))
    }
  }

  return {
    name: 'webhook',
    async deliver(events, signal) {
      const deliveries = new Map<DomainEvent, Delivery>()
      const lanes = [...Map.groupBy(events, ({ subject }) => subject).values()]
      const work = async (): Promise<void> => {
        for (let lane = lanes.shift(); lane !== undefined && !signal.aborted; lane = lanes.shift()) {
          for (const event of lane) {
            const delivery = await post(event, signal)
            deliveries.set(event, delivery)
            if (delivery !== 'delivered') break
          }
        }
      }
      await Promise.all(Array.from({ length: concurrency }, work))
      return events.map((event) => deliveries.get(event) ?? 'held_back')
    },
    close: () => agent.destroy(),
  }
}

function failure(reason: string): DeliveryFailure {
  return { reason, isFinal: false, retryAfterMs: undefined }
}
