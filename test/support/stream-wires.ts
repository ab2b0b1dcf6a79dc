import { type Client, type Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from '@connectrpc/connect-node'
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { at, has, type Json, list, parseJson, string } from './json.ts'
import { chat } from './payloads.ts'

/** A call that is the same in every protocol. */
export interface WiredCall {
  readonly key: string
  /** Its name. */
  readonly service: string
  readonly prompt: string
  readonly mode: 'whole' | 'stream'
  /** Lets the caller leave. */
  readonly signal?: AbortSignal
  /** Told of the headers of an answer. */
  readonly onHeaders?: (headers: Headers) => void
  /** Told of the text of a stream whenever it grew. */
  readonly onText?: (text: string) => void
}

/** What a caller was told. */
export interface Told {
  /** Of the answer's headers. */
  readonly requestId: string
  /** Text that arrived. */
  readonly text: string
  /** Ended as a success does in this protocol: a status of success, an end with status OK, `[DONE]`. */
  readonly isSuccess: boolean
  /** How the protocol names the error; undefined without one. */
  readonly error: ToldError | undefined
}

export type ToldError =
  /** Of gRPC and Connect: the code, and the reason in its details. */
  | { readonly kind: 'code'; readonly code: Code; readonly reason: string }
  /** Of the OpenAI API: an answer with a status, or an event within the stream. */
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  | { readonly kind: 'event'; readonly code: string }

export type WireName = 'gRPC' | 'gRPC-Web' | 'Connect JSON' | 'OpenAI API'

/**
 * Callers of a gate in each protocol, as its clients are made: what they do not raise, an application does not see.
 * `sessionManager` has the connection of gRPC.
 */
export function wiresOf(
  address: string,
  sessionManager = new Http2SessionManager(address),
): Readonly<Record<WireName, (call: WiredCall) => Promise<Told>>> {
  const options = { baseUrl: address } as const
  const transports = {
    gRPC: createGrpcTransport({ ...options, sessionManager }),
    'gRPC-Web': createGrpcWebTransport({ ...options, httpVersion: '1.1' }),
    'Connect JSON': createConnectTransport({ ...options, httpVersion: '1.1', useBinaryFormat: false }),
  }
  const rpc = (transport: Transport) => {
    const client = createClient(ConsumptionService, transport)
    return (call: WiredCall) => callRpc(client, call)
  }
  return {
    gRPC: rpc(transports.gRPC),
    'gRPC-Web': rpc(transports['gRPC-Web']),
    'Connect JSON': rpc(transports['Connect JSON']),
    'OpenAI API': (call) => callOpenAi(address, call),
  }
}

async function callRpc(client: Client<typeof ConsumptionService>, call: WiredCall): Promise<Told> {
  const request = { serviceId: call.service, payload: chat(call.prompt) }
  let requestId = ''
  let text = ''
  let isSuccess = false
  const options = {
    headers: { authorization: `Bearer ${call.key}` },
    ...(call.signal === undefined ? {} : { signal: call.signal }),
    onHeader: (headers: Headers) => {
      requestId = headers.get('x-request-id') ?? ''
      call.onHeaders?.(headers)
    },
  }
  try {
    if (call.mode === 'whole') {
      const { responseData } = await client.routeRequest(request, options)
      text = textOf(parseJson(Buffer.from(responseData).toString()))
      isSuccess = true
    } else {
      for await (const { part } of client.streamRequest(request, options)) {
        if (part.case === 'eventData') text += textOf(parseJson(Buffer.from(part.value).toString()))
        isSuccess = part.case === 'end'
        call.onText?.(text)
      }
    }
  } catch (thrown) {
    const error = ConnectError.from(thrown)
    const [info] = error.findDetails(ErrorInfoSchema)
    requestId ||= error.metadata.get('x-request-id') ?? ''
    return { requestId, text, isSuccess, error: { kind: 'code', code: error.code, reason: info?.reason ?? '' } }
  }
  return { requestId, text, isSuccess, error: undefined }
}

async function callOpenAi(address: string, call: WiredCall): Promise<Told> {
  const isStream = call.mode === 'stream'
  const response = await fetch(`${address}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${call.key}` },
    body: JSON.stringify({ model: call.service, messages: [{ role: 'user', content: call.prompt }], stream: isStream }),
    signal: call.signal ?? null,
  })
  const requestId = response.headers.get('x-request-id') ?? ''
  call.onHeaders?.(response.headers)
  if (!response.ok) {
    const code = string(at(parseJson(await response.text()), 'error', 'code'))
    return { requestId, text: '', isSuccess: false, error: { kind: 'status', status: response.status, code } }
  }
  if (!isStream) return { requestId, text: textOf(parseJson(await response.text())), isSuccess: true, error: undefined }
  let text = ''
  let isSuccess = false
  let error: ToldError | undefined
  for await (const data of eventsOf(response)) {
    if (data === '[DONE]') {
      isSuccess = true
      continue
    }
    const chunk = parseJson(data)
    if (has(chunk, 'error')) error = { kind: 'event', code: string(at(chunk, 'error', 'code')) }
    else text += textOf(chunk)
    call.onText?.(text)
  }
  return { requestId, text, isSuccess, error }
}

/** Data of server-sent events of one line each. */
async function* eventsOf({ body }: Response): AsyncGenerator<string, void> {
  let rest = ''
  for await (const part of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const events = (rest + part).split('\n\n')
    rest = events.pop() ?? ''
    yield* events.map((event) => event.replace(/^data: /, ''))
  }
  if (rest !== '') throw new Error(`a stream ended within an event: ${rest}`)
}

/** Of a whole answer, or of an event of a stream. */
function textOf(answer: Json): string {
  return list(at(answer, 'choices'))
    .map((choice) => at(choice, has(choice, 'delta') ? 'delta' : 'message'))
    .map((said) => (has(said, 'content') ? string(at(said, 'content')) : ''))
    .join('')
}
