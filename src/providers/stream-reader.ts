/**
 * Reads a stream by what one protocol's interpreter makes of its events: hands pieces on, counts, learns the template of
 * the text's deltas, and gives the verdict at the end.
 */
import { isUtf8 } from 'node:buffer'
import { TollgateError } from '../errors.ts'
import { EventStream, type Framing, type RawEvent } from './event-stream.ts'
import { backendError, cutStream, invalidAnswer, isErrorObject } from './failures.ts'
import { parseObject, parseObjectText } from './json.ts'
import type { ReadRequest, StreamEnd, StreamEvent, StreamReader, StreamReport } from './provider.ts'
import { Tally } from './tally.ts'
import { fitsTemplate, learnTemplate, matchTemplate, type Template } from './template.ts'

/** What one protocol makes of its events. */
export interface Interpreter {
  readonly framing: Framing
  /** Data that is the end marker and no JSON; undefined for a protocol without one. */
  readonly endMarker: string | undefined
  /** Reads one event that is no error object. Throws BACKEND_ANSWER_INVALID for what cannot be. */
  read(body: Record<string, unknown>, tally: Tally): Reading
  /** Whether the finish reason has come: the end is no cut. `sawEnd` tells that the end marker came. */
  isFinished(sawEnd: boolean): boolean
  /** What the caller gets at the end of a complete stream; `end` is the event that ended it, undefined when none did. */
  tail(tally: Tally, end: Buffer | undefined): Uint8Array
}

export type Reading =
  | {
      readonly kind: 'pass'
      readonly hasOutput: boolean
      /** Set when the event's only effect on the tally is this delta. */
      readonly delta?: { readonly of: Template['of']; readonly text: string }
    }
  /** In place of the event, the caller gets this; nothing when it is empty. */
  | { readonly kind: 'write'; readonly bytes: Uint8Array; readonly hasOutput: boolean }
  /** The event ends the stream. */
  | { readonly kind: 'over' }

/** The caller gets nothing of this event. */
export const hidden: Reading = { kind: 'write', bytes: new Uint8Array(), hasOutput: false }
export const passed: Reading = { kind: 'pass', hasOutput: false }
export const over: Reading = { kind: 'over' }

export function createStreamReader(request: ReadRequest, interpreter: Interpreter): StreamReader {
  return new InterpretedStream(request, interpreter)
}

const noEvents: readonly StreamEvent[] = []

class InterpretedStream implements StreamReader {
  readonly #request: ReadRequest
  readonly #interpreter: Interpreter
  readonly #stream: EventStream
  readonly #tally = new Tally()
  #events: StreamEvent[] = []
  #template: Template | undefined
  /** Events with data. */
  #count = 0
  #sawEnd = false
  #endEvent: Buffer | undefined
  #end: StreamEnd | undefined

  constructor(request: ReadRequest, interpreter: Interpreter) {
    this.#request = request
    this.#interpreter = interpreter
    this.#stream = new EventStream(interpreter.framing, {
      skip: (chunk, from) => this.#skip(chunk, from),
      take: (event) => this.#take(event),
    })
  }

  get isOver(): boolean {
    return this.#sawEnd
  }

  push(chunk: Uint8Array): readonly StreamEvent[] {
    if (this.#end !== undefined || this.#sawEnd) return noEvents
    try {
      this.#stream.push(chunk)
    } catch (error) {
      this.#fail(error)
    }
    const events = this.#events
    this.#events = []
    return events
  }

  end(): StreamEnd {
    this.#end ??= this.#conclude()
    return this.#end
  }

  report(): StreamReport {
    return this.#tally.report(this.#request, this.#end?.verdict === 'complete')
  }

  #skip(chunk: Buffer, from: number): number {
    const template = this.#template
    if (template === undefined) return -1
    const match = matchTemplate(template, chunk, from)
    if (match === undefined) return -1
    const delivered = this.#tally[template.of]
    delivered.bytes += match.stringBytes
    delivered.deltas += match.events
    this.#events.push({ kind: 'piece', bytes: chunk.subarray(from, match.end), hasOutput: true })
    return match.end
  }

  #take(event: RawEvent): boolean {
    if (event.data === undefined || event.data.length === 0) {
      // Comments keep the caller's connection alive as they do ours.
      if (event.raw.includes(0x3a)) this.#events.push({ kind: 'piece', bytes: event.raw, hasOutput: false })
      return true
    }
    this.#count += 1
    const reading = this.#read(event.data, event.name)
    if (reading.kind === 'over') {
      this.#sawEnd = true
      this.#endEvent = event.raw
      return false
    }
    if (reading.kind === 'write') {
      const { bytes, hasOutput } = reading
      if (bytes.length > 0) this.#events.push({ kind: 'piece', bytes, hasOutput })
      return true
    }
    if (reading.delta !== undefined) this.#learn(event.raw, reading.delta)
    this.#events.push({ kind: 'piece', bytes: event.raw, hasOutput: reading.hasOutput })
    return true
  }

  #learn(raw: Buffer, delta: { readonly of: Template['of']; readonly text: string }): void {
    if (this.#template !== undefined && fitsTemplate(this.#template, raw)) return
    this.#template = learnTemplate(raw, delta.text, delta.of) ?? this.#template
  }

  #read(data: Buffer, name: string): Reading {
    if (!isUtf8(data)) throw invalidAnswer('is not UTF-8')
    const text = data.toString()
    if (text.trim() === this.#interpreter.endMarker) return over
    const body = parseObjectText(text)
    if (body === undefined) throw invalidAnswer('has an event that is not a JSON object')
    if (name === 'error' || isErrorObject(body)) throw backendError(body)
    return this.#interpreter.read(body, this.#tally)
  }

  #fail(error: unknown): void {
    if (!(error instanceof TollgateError)) throw error
    const verdict = verdictOf(error)
    this.#end = { verdict, error }
    this.#events.push({ kind: 'failure', verdict, error })
  }

  #conclude(): StreamEnd {
    try {
      const rest = this.#sawEnd ? undefined : this.#stream.rest()
      if (this.#count === 0) checkBegun(rest)
      this.#takeRest(rest)
    } catch (error) {
      if (!(error instanceof TollgateError)) throw error
      return { verdict: verdictOf(error), error }
    }
    if (!this.#interpreter.isFinished(this.#sawEnd)) return { verdict: 'cut', error: cutStream() }
    const last = this.#events.flatMap((event) => (event.kind === 'piece' ? [event.bytes] : []))
    const tail = this.#interpreter.tail(this.#tally, this.#endEvent)
    return { verdict: 'complete', tail: last.length === 0 ? tail : Buffer.concat([...last, tail]) }
  }

  /** Takes an event whose end is missing when nothing else of it is; half an event is a cut. */
  #takeRest(rest: RawEvent | undefined): void {
    if (rest?.data === undefined) return
    const isMarker = rest.data.toString().trim() === this.#interpreter.endMarker
    if (!isMarker && parseObject(rest.data) === undefined) return
    const ending = this.#interpreter.framing === 'sse' ? '\n\n' : '\n'
    this.#take({ ...rest, raw: Buffer.concat([rest.raw, Buffer.from(ending)]) })
  }
}

function verdictOf(error: TollgateError): 'malformed' | 'error' {
  const isMalformed = error.reason === 'BACKEND_ANSWER_INVALID' || error.reason === 'BACKEND_ANSWER_TOO_LARGE'
  return isMalformed ? 'malformed' : 'error'
}

/** A stream without any event: an error object as a plain body, or nothing that is a stream. */
function checkBegun(rest: RawEvent | undefined): void {
  if (rest === undefined) throw invalidAnswer('is empty')
  const body = parseObject(rest.raw)
  if (body !== undefined && isErrorObject(body)) throw backendError(body)
  if (rest.data === undefined) throw invalidAnswer('is no stream of events')
}
