/**
 * Answers over plain HTTP: a message as JSON, or a stream of them as one JSON object a line, or as server-sent events for a
 * caller that accepts those. What goes wrong before the first message is an ordinary error; after it, the last line is
 * `{"error": …}`, which no message of a stream can be.
 */
import {
  create,
  type DescMessage,
  isMessage,
  type JsonValue,
  type Message,
  type MessageInitShape,
  toJson,
} from '@bufbuild/protobuf'
import { reflect } from '@bufbuild/protobuf/reflect'
import { type HttpBody, HttpBodySchema } from '../../../gen/google/api/httpbody_pb.ts'
import { toJsonBytes } from '../../providers/json.ts'
import type { ChunkedAnswer, WholeAnswer } from '../answer.ts'
import type { AnswerHeaders } from '../answer-headers.ts'
import { toTollgateError } from '../connect-error.ts'
import type { ServerCall } from '../server-call.ts'
import { type Binding, rawBodyType } from './binding.ts'
import { errorBody } from './error-body.ts'

type Init = MessageInitShape<DescMessage>

/** The answer of a unary RPC. */
export function messageAnswer(
  { method, responseBody }: Binding,
  init: Init,
  headers: AnswerHeaders,
  status: number,
): WholeAnswer {
  const message = create(method.output, init)
  const raw = rawBodyOf(method.output, message, responseBody)
  if (raw !== undefined) {
    headers.set('content-type', raw.contentType)
    return bytesAnswer(status, headers, raw.data)
  }
  return bytesAnswer(status, headers, toJsonBytes(jsonOf({ method, responseBody }, message)))
}

export function errorAnswer(call: ServerCall, headers: AnswerHeaders): WholeAnswer {
  const error = call.error ?? toTollgateError(undefined)
  const status = call.rpc.httpStatusOf(error)
  headers.set('content-type', 'application/json')
  if (status === 401) headers.set('www-authenticate', 'Bearer')
  return bytesAnswer(status, headers, toJsonBytes(errorBody(error, status)))
}

/** The answer of an RPC that streams. Resolves when its first message is there; rejects with what went wrong before. */
export async function streamAnswer(
  binding: Binding,
  messages: AsyncIterable<Init>,
  call: ServerCall,
  headers: AnswerHeaders,
): Promise<ChunkedAnswer> {
  const items = messages[Symbol.asyncIterator]()
  const first = await items.next()
  const asEvents = /\btext\/event-stream\b/i.test(call.header('accept') ?? '')
  headers.set('content-type', asEvents ? 'text/event-stream; charset=utf-8' : 'application/x-ndjson')
  // Or nginx collects lines until its buffer is full.
  headers.set('x-accel-buffering', 'no')
  return {
    status: 200,
    header: headers,
    body: lines(binding, first, items, call, asEvents ? eventFraming : lineFraming),
  }
}

interface Framing {
  readonly message: (json: string) => string
  readonly error: (json: string) => string
  /** What says that the stream ended well. */
  readonly end: string
}

const lineFraming: Framing = { message: (json) => `${json}\n`, error: (json) => `${json}\n`, end: '' }

/** The end is an event, because browsers connect anew when a stream just ends. */
const eventFraming: Framing = {
  message: (json) => `data: ${json}\n\n`,
  error: (json) => `event: error\ndata: ${json}\n\n`,
  end: 'event: end\ndata: {}\n\n',
}

async function* lines(
  binding: Binding,
  first: IteratorResult<Init>,
  items: AsyncIterator<Init>,
  call: ServerCall,
  framing: Framing,
): AsyncGenerator<Uint8Array, void> {
  try {
    for (let item = first; item.done !== true; item = await items.next()) {
      const message = create(binding.method.output, item.value)
      yield encoder.encode(framing.message(JSON.stringify(jsonOf(binding, message))))
    }
    if (framing.end !== '') yield encoder.encode(framing.end)
  } catch (thrown) {
    const error = call.error ?? toTollgateError(thrown)
    yield encoder.encode(framing.error(JSON.stringify(errorBody(error, call.rpc.httpStatusOf(error)))))
  } finally {
    await items.return?.()
  }
}

/** Fields that are 0, false or empty are written too: who reads JSON has no schema to learn them from. */
function jsonOf({ method, responseBody }: Pick<Binding, 'method' | 'responseBody'>, message: Message): JsonValue {
  const json = toJson(method.output, message, { alwaysEmitImplicit: true })
  if (responseBody === undefined) return json
  return typeof json === 'object' && json !== null && !Array.isArray(json)
    ? (json[responseBody.jsonName] ?? null)
    : null
}

function rawBodyOf(output: DescMessage, message: Message, responseBody: Binding['responseBody']): HttpBody | undefined {
  if (responseBody === undefined) return output.typeName === rawBodyType ? asHttpBody(message) : undefined
  if (responseBody.fieldKind !== 'message' || responseBody.message.typeName !== rawBodyType) return undefined
  return asHttpBody(reflect(output, message).get(responseBody).message)
}

function asHttpBody(message: Message): HttpBody {
  if (!isMessage(message, HttpBodySchema)) throw new Error(`${message.$typeName} is no ${rawBodyType}`)
  return message
}

function bytesAnswer(status: number, headers: AnswerHeaders, body: Uint8Array): WholeAnswer {
  headers.set('content-length', String(body.length))
  return { status, headers, whole: body }
}

const encoder = new TextEncoder()
