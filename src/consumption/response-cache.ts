/**
 * The response cache: answers of this process, for services that allow it, to requests that are the same byte for byte but
 * for the white space between the tokens of their JSON. Nothing else is normalized: two requests of which a backend could
 * make different things must never share an answer. A unary call and a stream have answers of their own.
 */
import { createHash } from 'node:crypto'
import type { Mode } from '../providers/provider.ts'
import type { ConsumerRecord, ResponseCachePolicy, ServiceRecord } from '../registry/records.ts'
import type { GateRequest } from './gate.ts'

/** An answer that was served in full. */
export interface CachedAnswer {
  /** The whole answer, or all events of a stream. */
  readonly body: Uint8Array
  readonly model: string
  readonly finishReason: string
}

export interface ResponseCache {
  /** Longest body that is kept. */
  readonly maxAnswerBytes: number
  get(key: string): CachedAnswer | undefined
  /** Keeps it in place of an earlier one. */
  set(key: string, answer: CachedAnswer, policy: ResponseCachePolicy): void
  /** Bytes and answers that are held. */
  size(): { readonly bytes: number; readonly answers: number }
}

/** What an answer takes beside its body. */
const overheadBytes = 512

/** Holds at most `maxBytes` of answers; the one that was used least recently goes first. 0 holds none. */
export function createResponseCache(maxBytes: number, now: () => number): ResponseCache {
  /** In the order of their last use. */
  const answers = new Map<string, { readonly answer: CachedAnswer; readonly untilMs: number }>()
  let bytes = 0
  const maxAnswerBytes = Math.floor(maxBytes / 16) - overheadBytes

  function remove(key: string): void {
    const held = answers.get(key)
    if (held === undefined) return
    answers.delete(key)
    bytes -= sizeOf(held.answer)
  }

  return {
    maxAnswerBytes,

    get(key) {
      const held = answers.get(key)
      if (held === undefined) return undefined
      answers.delete(key)
      if (held.untilMs > now()) {
        answers.set(key, held)
        return held.answer
      }
      bytes -= sizeOf(held.answer)
      return undefined
    },

    set(key, answer, { ttlMs }) {
      remove(key)
      if (answer.body.length > maxAnswerBytes) return
      // The body may be a view of a larger buffer, which would be held as a whole.
      answers.set(key, { answer: { ...answer, body: Uint8Array.from(answer.body) }, untilMs: now() + ttlMs })
      bytes += sizeOf(answer)
      for (const oldest of answers.keys()) {
        if (bytes <= maxBytes) break
        remove(oldest)
      }
    },

    size: () => ({ bytes, answers: answers.size }),
  }
}

function sizeOf({ body }: CachedAnswer): number {
  return body.length + overheadBytes
}

/** Who shares an answer: whoever has the same key. */
export function cacheKeyOf(
  { payload, dialect, kind }: GateRequest,
  mode: Mode,
  { id, organizationId }: ConsumerRecord,
  service: ServiceRecord,
  { sharing }: ResponseCachePolicy,
): string {
  const scope = { consumer: `consumer:${id}`, organization: `organization:${organizationId}`, everyone: '' }[sharing]
  const parts = [service.id, service.version, mode, dialect, kind ?? '', scope, '']
  return createHash('sha256').update(parts.join('\n')).update(compact(payload)).digest('base64url')
}

const quote = 0x22
const backslash = 0x5c
const whiteSpace: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d])

/** JSON without the white space between its tokens. */
export function compact(json: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(json.length)
  let length = 0
  let isInString = false
  for (let at = 0; at < json.length; at += 1) {
    const byte = json[at] ?? 0
    if (!isInString && whiteSpace.has(byte)) continue
    out[length++] = byte
    if (byte === quote) isInString = !isInString
    else if (isInString && byte === backslash) {
      at += 1
      if (at < json.length) out[length++] = json[at] ?? 0
    }
  }
  return out.subarray(0, length)
}
