/**
 * ConformanceService, which answers with what its requests say, and echoes what it was asked. (connectrpc/conformance,
 * docs/testing_servers.md.) Two things are missing because no service of the gate has them: streams from the client only,
 * and trailers of an implementation's own.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { type Any, anyPack } from '@bufbuild/protobuf/wkt'
import { ConnectError } from '@connectrpc/connect'
import type { Call } from '../../src/call.ts'
import { TollgateError } from '../../src/errors.ts'
import { register, type ServiceRegistration } from '../../src/server/rpc.ts'
import { ServerCall } from '../../src/server/server-call.ts'
import {
  type BidiStreamRequest,
  BidiStreamRequestSchema,
  type ConformancePayload_RequestInfo,
  ConformancePayload_RequestInfoSchema,
  type ConformancePayloadSchema,
  ConformanceService,
  type Error as ErrorDefinition,
  type Header,
  IdempotentUnaryRequestSchema,
  ServerStreamRequestSchema,
  type StreamResponseDefinition,
  UnaryRequestSchema,
  type UnaryResponseDefinition,
} from './gen/connectrpc/conformance/v1/service_pb.ts'

export function conformanceService(): ServiceRegistration {
  const registration = register(
    ConformanceService,
    {
      unary: (request, call) => answerOnce(request.responseDefinition, [anyPack(UnaryRequestSchema, request)], call),
      idempotentUnary: (request, call) =>
        answerOnce(request.responseDefinition, [anyPack(IdempotentUnaryRequestSchema, request)], call),
      serverStream: (request, call) =>
        answerInParts(request.responseDefinition, [anyPack(ServerStreamRequestSchema, request)], call),
      bidiStream: converse,
    },
    { public: true },
  )
  const methods = ConformanceService.methods.filter(({ methodKind }) => methodKind !== 'client_streaming')
  return { ...registration, service: { ...ConformanceService, methods } }
}

interface Part {
  readonly payload: MessageInitShape<typeof ConformancePayloadSchema>
}

async function answerOnce(definition: UnaryResponseDefinition | undefined, asked: Any[], call: Call): Promise<Part> {
  setHeaders(definition?.responseHeaders, call)
  await pause(definition, call)
  const response = definition?.response
  const requestInfo = infoOf(call, asked)
  if (response?.case === 'error') throw failure(response.value, requestInfo)
  return { payload: { data: response?.value ?? new Uint8Array(), requestInfo } }
}

async function* answerInParts(
  definition: StreamResponseDefinition | undefined,
  asked: Any[],
  call: Call,
): AsyncGenerator<Part, void> {
  setHeaders(definition?.responseHeaders, call)
  let requestInfo: ConformancePayload_RequestInfo | undefined = infoOf(call, asked)
  for (const data of definition?.responseData ?? []) {
    await pause(definition, call)
    yield { payload: { data, ...(requestInfo && { requestInfo }) } }
    requestInfo = undefined
  }
  if (definition?.error !== undefined) throw failure(definition.error, requestInfo)
}

/** In full duplex an answer for each request while there are some; the others when the caller has said all. */
async function* converse(requests: AsyncIterable<BidiStreamRequest>, call: Call): AsyncGenerator<Part, void> {
  let first: BidiStreamRequest | undefined
  let asked: Any[] = []
  let sent = 0
  for await (const request of requests) {
    first ??= request
    if (request === first) setHeaders(first.responseDefinition?.responseHeaders, call)
    asked.push(anyPack(BidiStreamRequestSchema, request))
    const data = first.responseDefinition?.responseData[sent]
    if (!first.fullDuplex) continue
    if (data === undefined) break
    await pause(first.responseDefinition, call)
    yield {
      payload: {
        data,
        requestInfo:
          sent === 0 ? infoOf(call, asked) : create(ConformancePayload_RequestInfoSchema, { requests: asked }),
      },
    }
    asked = []
    sent += 1
  }
  for (const data of first?.responseDefinition?.responseData.slice(sent) ?? []) {
    await pause(first?.responseDefinition, call)
    yield { payload: { data, ...(sent === 0 && { requestInfo: infoOf(call, asked) }) } }
    sent += 1
  }
  const error = first?.responseDefinition?.error
  if (error !== undefined) throw failure(error, sent === 0 ? infoOf(call, asked) : undefined)
}

function setHeaders(headers: readonly Header[] | undefined, call: Call): void {
  for (const { name, value } of headers ?? []) call.setResponseHeader(name.toLowerCase(), value.join(', '))
}

async function pause(definition: { readonly responseDelayMs: number } | undefined, call: Call): Promise<void> {
  const ms = definition?.responseDelayMs ?? 0
  if (ms > 0) await delay(ms, undefined, { signal: call.signal })
}

function infoOf(call: Call, requests: Any[]): ConformancePayload_RequestInfo {
  if (!(call instanceof ServerCall)) throw new Error('the call is not the server’s')
  const headers = Object.entries(call.headers).filter(([name]) => !name.startsWith(':'))
  return create(ConformancePayload_RequestInfoSchema, {
    requestHeaders: headers.map(([name, value = '']) => ({ name, value: Array.isArray(value) ? value : [value] })),
    ...(call.callerTimeoutMs !== undefined && { timeoutMs: BigInt(Math.round(call.callerTimeoutMs)) }),
    requests,
  })
}

/** What own-errors.ts sends as it is, with the request in its details when no answer told of it. */
function failure({ code, message, details }: ErrorDefinition, info: ConformancePayload_RequestInfo | undefined): Error {
  const error = new ConnectError(message ?? '', code || undefined)
  const echoed = info === undefined ? [] : [anyPack(ConformancePayload_RequestInfoSchema, info)]
  error.details = [...details, ...echoed].map(({ typeUrl, value }) => ({ type: typeUrl.replace(/.*\//, ''), value }))
  return new TollgateError('INTERNAL', 'as the request wants', { cause: error })
}
