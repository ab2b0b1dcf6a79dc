import { create, toBinary } from '@bufbuild/protobuf'
import { RouteRequestRequestSchema, StreamRequestRequestSchema } from '../gen/marketplace/v1/consumption_pb.ts'
import type { Gate } from './gate.ts'
import type { LoadOrder } from './orders.ts'
import { type BenchService, chatPath, requestBody } from './services.ts'

/** What to send, and where to. */
export type Request = Pick<LoadOrder, 'wire' | 'origin' | 'path' | 'headers' | 'body' | 'tokens'>

/** A way from the load generator to the backend. */
export interface Target {
  readonly name: string
  /** Process between caller and backend; undefined for none. */
  readonly pid: number | undefined
  request(service: BenchService): Request
}

export const directName = 'backend, direct'
export const proxyName = 'bare proxy'

/** The backend itself, or the bare proxy, which hands paths on. */
export function plainTarget(name: string, pid: number | undefined, origin: string): Target {
  return http1Target(name, pid, origin, (service) => ({ path: service.target, body: requestBody(service) }))
}

/** The OpenAI API of a gate: unary, and server-sent events. */
export function openaiTarget({ pid, origin, key }: Gate, name = 'gate, OpenAI JSON'): Target {
  return http1Target(name, pid, origin, (service) => ({ path: chatPath, body: requestBody(service) }), key)
}

/** `RouteRequest` over HTTP/1.1, with the payload in base64. */
export function connectTarget({ pid, origin, key }: Gate, name = 'gate, Connect JSON'): Target {
  const ask = (service: BenchService) => ({
    path: '/marketplace.v1.ConsumptionService/RouteRequest',
    body: Buffer.from(JSON.stringify({ serviceId: service.name, payload: requestBody(service).toString('base64') })),
  })
  return http1Target(name, pid, origin, ask, key)
}

/** JSON over HTTP/1.1; with a key as its bearer. */
function http1Target(
  name: string,
  pid: number | undefined,
  origin: string,
  ask: (service: BenchService) => { readonly path: string; readonly body: Buffer },
  key?: string,
): Target {
  const headers = { 'content-type': 'application/json', ...(key !== undefined && { authorization: `Bearer ${key}` }) }
  return {
    name,
    pid,
    request: (service) => {
      const { path, body } = ask(service)
      return { wire: 'http1', origin, path, headers, body: body.toString('base64'), ...expected(service) }
    },
  }
}

/** `RouteRequest` and `StreamRequest` over one HTTP/2 connection. */
export function grpcTarget({ pid, origin, key }: Gate, name = 'gate, gRPC'): Target {
  return {
    name,
    pid,
    request: (service) => {
      const fields = { serviceId: service.name, payload: requestBody(service) }
      const isStream = service.tokens !== undefined
      const message = isStream
        ? toBinary(StreamRequestRequestSchema, create(StreamRequestRequestSchema, fields))
        : toBinary(RouteRequestRequestSchema, create(RouteRequestRequestSchema, fields))
      return {
        wire: 'grpc',
        origin,
        path: `/marketplace.v1.ConsumptionService/${isStream ? 'StreamRequest' : 'RouteRequest'}`,
        headers: { authorization: `Bearer ${key}` },
        body: Buffer.from(message).toString('base64'),
        ...expected(service),
      }
    },
  }
}

function expected({ tokens }: BenchService): { readonly tokens?: number } {
  return tokens === undefined ? {} : { tokens }
}
