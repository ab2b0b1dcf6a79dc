/**
 * Streams of the OpenAI API: server-sent events, handed on piece by piece as the caller reads them. What goes wrong before
 * the first output is an ordinary error answer; after it, an event that is an error object and no `[DONE]`, because the
 * official SDKs take a stream that simply ends for a success.
 */
import type { GateStreamItem } from '../../consumption/gate.ts'
import type { TollgateError } from '../../errors.ts'
import { toJsonBytes } from '../../providers/json.ts'
import type { AnswerHeaders } from '../answer-headers.ts'
import { failCall, toTollgateError } from '../connect-error.ts'
import { noBytes } from '../exchange.ts'
import type { Late, ServerCall } from '../server-call.ts'
import { type Last, leaveParts, type Outlet, PartsAnswer, type StreamedAnswer } from '../streamed-answer.ts'
import { toOpenAiError } from './error-table.ts'

/** Resolves when the first output is there; rejects with what went wrong before. `headers` are the answer's. */
export async function openEventStream(
  stream: AsyncIterable<GateStreamItem>,
  call: ServerCall,
  headers: AnswerHeaders,
  late: Late,
): Promise<StreamedAnswer> {
  const items = stream[Symbol.asyncIterator]()
  let first: IteratorResult<GateStreamItem>
  try {
    first = await call.race(items.next(), late)
  } catch (error) {
    leaveParts(items, call, late)
    throw error
  }
  if (first.done === true || first.value.kind !== 'start') throw new Error('a stream did not begin with its start')
  headers.set('x-request-id', first.value.requestId)
  headers.set('content-type', 'text/event-stream; charset=utf-8')
  headers.set('cache-control', 'no-cache')
  // Or nginx collects tokens until its buffer is full.
  headers.set('x-accel-buffering', 'no')
  return new EventStream(items, headers, call, late)
}

class EventStream extends PartsAnswer<GateStreamItem> {
  readonly hasTrailers = false
  #hasEnd = false

  protected put(item: GateStreamItem, outlet: Outlet): undefined {
    if (item.kind === 'start') return
    if (item.kind === 'end') this.#hasEnd = true
    outlet.putAll(item.kind === 'end' ? item.tail : item.pieces)
  }

  protected ended(): Last {
    if (!this.#hasEnd) throw new Error('a stream ended without its end')
    return { bytes: noBytes }
  }

  protected failed(thrown: unknown): Last {
    failCall(this.call, thrown)
    return { bytes: errorEvent(this.call.error ?? toTollgateError(thrown)) }
  }
}

function errorEvent(error: TollgateError): Uint8Array {
  return Buffer.concat([Buffer.from('data: '), toJsonBytes(toOpenAiError(error).body), Buffer.from('\n\n')])
}
