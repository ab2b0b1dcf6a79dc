/**
 * A gRPC caller that does what RFC 9113 asks of one: it opens no stream on a connection that was told GOAWAY, and repeats
 * a call only when the server says that it did nothing of it, which is when its stream is above the last one of GOAWAY or
 * was reset with REFUSED_STREAM (sections 6.8 and 8.7). Everything else is a failure.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2'
import { enveloped } from './raw-streams.ts'

export interface GrpcCaller {
  /** Resolves to the number of messages of the answer; rejects with what went wrong. */
  call(method: string, message: Uint8Array): Promise<number>
  /** Calls that were repeated because nothing had been done of them. */
  readonly repeated: () => number
  /** Connections that it made. */
  readonly connections: () => number
  close(): void
}

export function createGrpcCaller(address: string, key: string): GrpcCaller {
  const open = new Set<ClientHttp2Session>()
  let current: ClientHttp2Session | undefined
  let repeated = 0
  let connections = 0

  function session(): ClientHttp2Session {
    if (current !== undefined && !current.closed && !current.destroyed) return current
    const made = connect(address)
    connections += 1
    open.add(made)
    const leave = (): void => {
      if (current === made) current = undefined
    }
    made.on('goaway', leave)
    made.on('error', leave)
    made.on('close', () => {
      leave()
      open.delete(made)
    })
    current = made
    return made
  }

  async function attempt(method: string, message: Uint8Array): Promise<number | 'not done'> {
    const stream = session().request({
      ':method': 'POST',
      ':path': `/marketplace.v1.ConsumptionService/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${key}`,
    })
    stream.end(enveloped(message))
    try {
      return await answerOf(stream)
    } catch (error) {
      if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) return 'not done'
      throw error
    }
  }

  return {
    async call(method, message) {
      for (;;) {
        const messages = await attempt(method, message)
        if (messages !== 'not done') return messages
        repeated += 1
      }
    },
    repeated: () => repeated,
    connections: () => connections,
    close() {
      for (const each of open) each.close()
    },
  }
}

async function answerOf(stream: ClientHttp2Stream): Promise<number> {
  let status = 'no status'
  stream.on('response', (headers) => {
    status = String(headers['grpc-status'] ?? status)
  })
  stream.on('trailers', (headers) => {
    status = `${headers['grpc-status']} ${headers['grpc-message'] ?? ''}`.trim()
  })
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  if (status !== '0') throw new Error(`ended with ${status}, reset ${stream.rstCode}`)
  const body = Buffer.concat(chunks)
  let messages = 0
  for (let at = 0; at < body.length; at += 5 + body.readUInt32BE(at + 1)) messages += 1
  return messages
}
