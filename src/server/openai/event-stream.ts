/**
 * Streams of the OpenAI API: server-sent events, handed on piece by piece as the caller reads them. What goes wrong before
 * the first output is an ordinary error answer; after it, an event that is an error object and no `[DONE]`, because the
 * official SDKs take a stream that simply ends for a success.
 */
import type { GateStreamItem } from '../../consumption/gate.ts'
import type { TollgateError } from '../../errors.ts'
import { toJsonBytes } from '../../providers/json.ts'
import type { ChunkedAnswer } from '../answer.ts'
import { failCall, toTollgateError } from '../connect-error.ts'
import type { ServerCall } from '../server-call.ts'
import { toOpenAiError } from './error-table.ts'

/** Runs a step of the gate as part of the call; rejects when the call is over. */
export type Work = <T>(call: ServerCall, step: () => Promise<T>) => Promise<T>

/** Resolves when the first output is there; rejects with what went wrong before. `headers` are the answer's. */
export async function openEventStream(
  stream: AsyncIterable<GateStreamItem>,
  call: ServerCall,
  headers: Map<string, string>,
  work: Work,
): Promise<ChunkedAnswer> {
  const items = stream[Symbol.asyncIterator]()
  let first: IteratorResult<GateStreamItem>
  try {
    first = await work(call, () => items.next())
  } catch (error) {
    leave(items, call, work)
    throw error
  }
  if (first.done === true || first.value.kind !== 'start') throw new Error('a stream did not begin with its start')
  headers.set('x-request-id', first.value.requestId)
  headers.set('content-type', 'text/event-stream; charset=utf-8')
  headers.set('cache-control', 'no-cache')
  // Or nginx collects tokens until its buffer is full.
  headers.set('x-accel-buffering', 'no')
  return { status: 200, header: headers, body: events(items, call, work) }
}

async function* events(
  items: AsyncIterator<GateStreamItem>,
  call: ServerCall,
  work: Work,
): AsyncGenerator<Uint8Array, void> {
  try {
    for (;;) {
      const next = await work(call, () => items.next())
      if (next.done === true) throw new Error('a stream ended without its end')
      if (next.value.kind === 'pieces') yield joined(next.value.pieces)
      if (next.value.kind === 'end') return yield joined(next.value.tail)
    }
  } catch (thrown) {
    failCall(call, thrown)
    yield errorEvent(call.error ?? toTollgateError(thrown))
  } finally {
    leave(items, call, work)
  }
}

/** Not awaited: a gate that is slow to end must not hold the answer. The call stays pending. */
function leave(items: AsyncIterator<GateStreamItem>, call: ServerCall, work: Work): void {
  work(call, async () => items.return?.()).catch(() => {})
}

/** One write for what arrived together. */
function joined(events: readonly Uint8Array[]): Uint8Array {
  const [only] = events
  return events.length === 1 && only !== undefined ? only : Buffer.concat(events)
}

function errorEvent(error: TollgateError): Uint8Array {
  return Buffer.concat([Buffer.from('data: '), toJsonBytes(toOpenAiError(error).body), Buffer.from('\n\n')])
}
