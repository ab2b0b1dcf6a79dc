import { cloudEventContentType } from './domain-event.ts'
import { deliverInLanes } from './lanes.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { createPoster } from './poster.ts'
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

/** Posts each event as one JSON document. Any answer of class 2 is a receipt. */
export function createWebhookSink(options: WebhookSinkOptions): OutboxSink {
  const { url, key, timeoutMs = 10_000, concurrency = 8, now = Date.now } = options
  const poster = createPoster({ url, timeoutMs, concurrency, now })
  return {
    name: 'webhook',
    deliver: (events, signal) =>
      deliverInLanes(events, concurrency, signal, (event) => {
        const body = JSON.stringify(event)
        const signed = signatureHeaders(key, event.id, now(), body)
        return poster.post({ 'content-type': cloudEventContentType, ...signed }, body, signal)
      }),
    close: poster.close,
  }
}
