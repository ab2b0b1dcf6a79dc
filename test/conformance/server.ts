import { readSync } from 'node:fs'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { startFixture } from '../../src/server/fixture.ts'
import {
  ServerCompatRequestSchema,
  ServerCompatResponseSchema,
} from './gen/connectrpc/conformance/v1/server_compat_pb.ts'
import { conformanceService } from './service.ts'

const asked = fromBinary(ServerCompatRequestSchema, readMessage())
const { server } = await startFixture({
  services: [conformanceService()],
  ...(asked.messageReceiveLimit > 0 && { maxMessageBytes: asked.messageReceiveLimit }),
})
// A runner that was killed says nothing.
setTimeout(() => process.exit(1), 600_000)
process.on('SIGTERM', () => void server.close().then(() => process.exit()))
const listens = create(ServerCompatResponseSchema, { host: server.host, port: server.port })
process.stdout.write(withLength(toBinary(ServerCompatResponseSchema, listens)))

/** A message on stdin, behind its length in four bytes. */
function readMessage(): Buffer {
  return read(read(4).readUInt32BE())
}

function read(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; ) {
    const more = readSync(0, bytes, at, length - at, null)
    if (more === 0) throw new Error('stdin ended before the request')
    at += more
  }
  return bytes
}

function withLength(message: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(message.length)
  return Buffer.concat([length, message])
}
