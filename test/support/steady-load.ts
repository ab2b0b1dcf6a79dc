import { create, toBinary } from '@bufbuild/protobuf'
import { RouteRequestRequestSchema, StreamRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { createGrpcCaller } from './grpc-caller.ts'
import { chat } from './payloads.ts'

/** Callers that call one after the other until they are stopped. */
export interface SteadyLoad {
  /** Calls that were answered as a whole, by what they are. */
  readonly answered: Readonly<Record<Kind, number>>
  readonly failures: readonly string[]
  /** For a test that waits in vain. */
  told(): string
  /** Connections of the gRPC callers. */
  connections(): number
  /** Each caller ends its call; then nothing is under way. */
  stop(): Promise<void>
}

interface Called {
  readonly name: string
  readonly serviceId: string
  readonly key: string
}

type Kind = 'HTTP/1.1' | 'HTTP/1.1 stream' | 'gRPC' | 'gRPC stream'

const streamTokens = 20

/** How the backend of the service must answer: streams last a tenth of a second. */
export const streamFault = encodeURIComponent(`out=${streamTokens},pace=5`)

/** Four callers of each kind: calls and streams over kept HTTP/1.1 connections, and over two of HTTP/2. */
export function startSteadyLoad(address: string, { name, serviceId, key }: Called): SteadyLoad {
  const answered = { 'HTTP/1.1': 0, 'HTTP/1.1 stream': 0, gRPC: 0, 'gRPC stream': 0 }
  const failures: string[] = []
  const grpc = [createGrpcCaller(address, key), createGrpcCaller(address, key)]
  const request = { serviceId, payload: chat('again and again') }
  const unary = toBinary(RouteRequestRequestSchema, create(RouteRequestRequestSchema, request))
  const stream = toBinary(StreamRequestRequestSchema, create(StreamRequestRequestSchema, request))
  let isStopped = false

  async function http1(isStream: boolean): Promise<string> {
    const response = await fetch(`${address}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: name, stream: isStream, messages: [{ role: 'user', content: 'again and again' }] }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${response.status} ${text}`)
    return text
  }
  async function overGrpc(at: number, method: string, message: Uint8Array, atLeast: number): Promise<void> {
    const messages = (await grpc[at % 2]?.call(method, message)) ?? 0
    if (messages < atLeast) throw new Error(`an answer of ${messages} messages`)
  }
  const calls: Readonly<Record<Kind, (at: number) => Promise<unknown>>> = {
    'HTTP/1.1': () => http1(false),
    'HTTP/1.1 stream': async () => {
      const text = await http1(true)
      if (!text.trimEnd().endsWith('[DONE]')) throw new Error(`a stream was cut: ${text.slice(-200)}`)
    },
    gRPC: (at) => overGrpc(at, 'RouteRequest', unary, 1),
    'gRPC stream': (at) => overGrpc(at, 'StreamRequest', stream, streamTokens),
  }
  async function callOn(kind: Kind, at: number): Promise<void> {
    while (!isStopped) {
      try {
        await calls[kind](at)
        answered[kind] += 1
      } catch (error) {
        failures.push(`${kind}: ${error instanceof Error ? `${error.message} ${String(error.cause ?? '')}` : error}`)
      }
    }
  }
  const kinds = ['HTTP/1.1', 'HTTP/1.1 stream', 'gRPC', 'gRPC stream'] as const
  const callers = kinds.flatMap((kind) => [0, 1, 2, 3].map((at) => callOn(kind, at)))
  return {
    answered,
    failures,
    told: () => `${JSON.stringify(answered)} ${failures.slice(0, 5).join('\n')}`,
    connections: () => grpc.reduce((sum, each) => sum + each.connections(), 0),
    async stop() {
      isStopped = true
      await Promise.all(callers)
      for (const each of grpc) each.close()
    },
  }
}
