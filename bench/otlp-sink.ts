/** Child process of the benchmark: an OTLP/HTTP collector that counts spans and keeps none. Answers a message with `{ spans }`. */
import { createServer } from 'node:http'

let spans = 0

/** Spans in an ExportTraceServiceRequest: its field 1 holds, in field 2, what holds spans in field 2. */
function countSpans(message: Buffer): number {
  let count = 0
  for (const resourceSpans of fieldsOf(message, 1))
    for (const scopeSpans of fieldsOf(resourceSpans, 2)) count += fieldsOf(scopeSpans, 2).length
  return count
}

/** The occurrences of a field of length-delimited type in a message that has fields of no other type beside it. */
function fieldsOf(message: Buffer, wanted: number): Buffer[] {
  const found: Buffer[] = []
  let at = 0
  while (at < message.length) {
    const tag = message.readUInt8(at)
    if ((tag & 7) !== 2) throw new Error('an export of spans with a field that is not known')
    at += 1
    let length = 0
    for (let shift = 0, more = true; more; shift += 7, at += 1) {
      const byte = message.readUInt8(at)
      length += (byte & 0x7f) * 2 ** shift
      more = byte >= 0x80
    }
    if (tag >> 3 === wanted) found.push(message.subarray(at, at + length))
    at += length
  }
  return found
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    spans += countSpans(Buffer.concat(chunks))
    response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end()
  })
})
process.on('disconnect', () => process.exit())
process.on('message', () => process.send?.({ spans }))
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address !== 'string') process.send?.({ url: `http://127.0.0.1:${address.port}` })
})
