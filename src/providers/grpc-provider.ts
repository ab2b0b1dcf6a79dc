/**
 * gRPC backends that speak ConsumptionService: a Tollgate behind a Tollgate. The payload passes as bytes into RouteRequest
 * or StreamRequest, and what the upstream counted is believed, for it has read the answer itself. How a call failed stands
 * in the trailers, which `src/routing/` reads.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  ConsumptionService,
  RouteRequestRequestSchema,
  type RouteRequestResponse,
  RouteRequestResponseSchema,
  StreamRequestRequestSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { invalidAnswer } from './failures.ts'
import { frameMessage, MessageFrames } from './grpc-frames.ts'
import { createGrpcStream } from './grpc-stream.ts'
import { upstreamModel, upstreamUsage } from './grpc-usage.ts'
import { readOpenaiFacts, skimRequest } from './openai-request.ts'
import type { Answer, BackendRequest, BackendTarget, Provider, ReadRequest } from './provider.ts'
import { requestHeaders } from './target.ts'

const contentType = 'application/grpc+proto'

/** Callers must speak the API of the upstream's service; the target's model is the name or id of that service. */
export function createGrpcProvider(): Provider {
  return {
    protocol: 'grpc',
    framing: 'sse',
    readRequest: (request) => ({
      ...readOpenaiFacts(request, skimRequest(request)),
      body: request.payload,
    }),
    prepare,
    readAnswer: readGrpcAnswer,
    openStream: createGrpcStream,
  }
}

function prepare(request: ReadRequest, target: BackendTarget): BackendRequest {
  const { method } = ConsumptionService
  const rpc = request.mode === 'stream' ? method.streamRequest : method.routeRequest
  const asked = { serviceId: target.model, payload: request.body }
  const message =
    request.mode === 'stream'
      ? toBinary(StreamRequestRequestSchema, create(StreamRequestRequestSchema, asked))
      : toBinary(RouteRequestRequestSchema, create(RouteRequestRequestSchema, asked))
  return {
    url: `${target.url.replace(/\/$/, '')}/${ConsumptionService.typeName}/${rpc.name}`,
    headers: { ...requestHeaders('bearer', target, contentType), 'content-type': contentType, te: 'trailers' },
    body: frameMessage(message),
    isGrpc: true,
  }
}

function readGrpcAnswer(answer: Uint8Array, request: ReadRequest): Answer {
  const told = decode(answer)
  return {
    ...upstreamUsage(told, request, told.responseData.length),
    model: upstreamModel(told),
    finishReason: told.finishReason,
    body: told.responseData,
  }
}

/** The answer's bytes are bounded already. */
function decode(answer: Uint8Array): RouteRequestResponse {
  const frames = new MessageFrames(answer.length)
  const [message, ...others] = frames.push(answer)
  if (message === undefined || others.length > 0 || !frames.isBetween) throw invalidAnswer('is not one gRPC message')
  try {
    return fromBinary(RouteRequestResponseSchema, message)
  } catch {
    throw invalidAnswer('is no RouteRequestResponse')
  }
}
