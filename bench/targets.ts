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
const json = 'application/json'

/** The backend itself, or the bare proxy, which hands paths on. */
export function plainTarget(name: string, pid: number | undefined, origin: string): Target {
  return {
    name,
    pid,
    request: (service) => ({
      wire: 'http1',
      origin,
      path: service.target,
      headers: { 'content-type': json },
      body: requestBody(service).toString('base64'),
      ...expected(service),
    }),
  }
}

/** The OpenAI API of a gate: unary, and server-sent events. */
export function openaiTarget({ pid, origin, key }: Gate, name = 'gate, OpenAI JSON'): Target {
  return {
    name,
    pid,
    request: (service) => ({
      wire: 'http1',
      origin,
      path: chatPath,
      headers: { 'content-type': json, authorization: `Bearer ${key}` },
      body: requestBody(service).toString('base64'),
      ...expected(service),
    }),
  }
}

/** `RouteRequest` over HTTP/1.1, with the payload in base64. */
export function connectTarget({ pid, origin, key }: Gate, name = 'gate, Connect JSON'): Target {
  return {
    name,
    pid,
    request: (service) => ({
      wire: 'http1',
      origin,
      path: '/marketplace.v1.ConsumptionService/RouteRequest',
      headers: { 'content-type': json, authorization: `Bearer ${key}` },
      body: base64({ serviceId: service.name, payload: requestBody(service).toString('base64') }),
    }),
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

function base64(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64')
}
