import { hash } from 'node:crypto'
import { connect } from 'node:http2'
import { create, toBinary, toJsonString } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RouteRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { type Fixture, keys, startFixture, until } from './fixture.ts'

/**
 * The short way against the router: each request goes twice, once as plain as can be and once with a content type that only
 * the router takes because of a capital letter, and the answers must be the same.
 */
let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture({ maxMessageBytes: 100_000, bodyTimeoutMs: 300, newId: () => 'one id for all' })
})
afterAll(() => {
  fixture.release()
  return fixture.close()
})

interface Exchange {
  readonly name: string
  readonly body: Uint8Array
  readonly path?: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
}

interface Answer {
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
  readonly trailers: Readonly<Record<string, unknown>>
}

const route = '/marketplace.v1.ConsumptionService/RouteRequest'

function ask(contentType: string, { body, path = route, method = 'POST', headers }: Exchange): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const session = connect(fixture.server.address)
  const chunks: Buffer[] = []
  let answered: Readonly<Record<string, unknown>> = {}
  let trailers: Readonly<Record<string, unknown>> = {}
  const stream = session.request({
    ':method': method,
    ':path': path,
    'content-type': contentType,
    authorization: `Bearer ${keys.own}`,
    ...headers,
  })
  session.on('error', reject)
  stream.on('response', (received) => {
    answered = received
  })
  stream.on('trailers', (received) => {
    trailers = received
  })
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('error', () => {})
  stream.on('close', () => {
    session.close()
    resolve({ headers: told(answered), body: digest(Buffer.concat(chunks)), trailers: told(trailers) })
  })
  stream.end(body)
  return promise
}

/** Short bodies as they are, others by their hash: a difference should be readable. */
function digest(body: Buffer): string {
  return body.length < 500 ? JSON.stringify(body.toString('latin1')) : `${body.length} bytes ${hash('sha256', body)}`
}

/** Without what differs from call to call. */
function told(headers: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept = Object.entries(headers).filter(([name]) => name !== 'date' && !name.endsWith('ratelimit-reset'))
  return Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1)))
}

function enveloped(message: Uint8Array, flags = 0, length = message.length): Uint8Array {
  const head = Buffer.alloc(5)
  head.writeUInt8(flags)
  head.writeUInt32BE(length, 1)
  return Buffer.concat([head, message])
}

const message = (serviceId: string, bytes = 10) =>
  create(RouteRequestRequestSchema, { serviceId, payload: new Uint8Array(bytes).fill(97) })
const binary = (serviceId: string, bytes?: number) => toBinary(RouteRequestRequestSchema, message(serviceId, bytes))
const json = (serviceId: string, bytes?: number) =>
  Buffer.from(toJsonString(RouteRequestRequestSchema, message(serviceId, bytes)))
const text = (body: string) => Buffer.from(body)

/** What goes wrong, or well, before a body is looked at, with the body that each format has. */
const ofAnyFormat = (body: (serviceId: string, bytes?: number) => Uint8Array): Exchange[] => [
  { name: 'a call', body: body('echo') },
  { name: 'a call with a large answer', body: body('echo', 50_000) },
  {
    name: 'a call with a large answer whose caller takes gzip',
    body: body('echo', 50_000),
    headers: { 'grpc-accept-encoding': 'identity,deflate,gzip', 'accept-encoding': 'br, gzip' },
  },
  {
    name: 'a call with a small answer whose caller takes gzip',
    body: body('echo'),
    headers: { 'grpc-accept-encoding': 'gzip', 'accept-encoding': 'gzip' },
  },
  { name: 'a refusal with limits and a wait', body: body('limited') },
  { name: 'a refusal with a text of any length', body: body('unknown') },
  { name: 'a crash', body: body('crash') },
  { name: 'a rule that is broken', body: body('') },
  { name: 'a wrong key', body: body('echo'), headers: { authorization: 'Bearer wrong' } },
  { name: 'no key', body: body('echo'), headers: { authorization: '' } },
  { name: 'no permission', body: body('echo'), headers: { authorization: `Bearer ${keys.noRoles}` } },
  { name: 'an RPC without an implementation', body: body('echo'), path: `${route.slice(0, -12)}EstimateCost` },
  {
    name: 'a timeout that is none',
    body: body('echo'),
    headers: { 'grpc-timeout': 'soon', 'connect-timeout-ms': '?' },
  },
  { name: 'a deadline', body: body('held'), headers: { 'grpc-timeout': '50m', 'connect-timeout-ms': '50' } },
  { name: 'a message over the limit', body: body('echo', 150_000) },
  { name: 'an unknown compression', body: body('echo'), headers: { 'grpc-encoding': 'br', 'content-encoding': 'br' } },
  { name: 'another method', body: new Uint8Array(0), method: 'PUT' },
]

/** The same messages as of unary calls: their fields are alike. */
const streaming = '/marketplace.v1.ConsumptionService/StreamRequest'
const ofStreams: Exchange[] = [
  ...ofAnyFormat((serviceId, bytes) => enveloped(binary(serviceId, bytes))).map((exchange) => ({
    path: streaming,
    ...exchange,
  })),
  ...['late:crash', 'late:limited', 'late:unknown', 'silent', 'many'].map((serviceId) => ({
    name: `a stream that is ${serviceId}`,
    path: streaming,
    body: enveloped(binary(serviceId)),
  })),
  {
    name: 'a stream that meets its deadline',
    path: streaming,
    body: enveloped(binary('late:held')),
    headers: { 'grpc-timeout': '50m' },
  },
]

const formats = {
  'application/grpc': [
    ...ofAnyFormat((serviceId, bytes) => enveloped(binary(serviceId, bytes))),
    { name: 'no envelope', body: new Uint8Array(0) },
    { name: 'half an envelope', body: new Uint8Array([0, 0]) },
    { name: 'an envelope that promises more', body: enveloped(binary('echo'), 0, 500) },
    { name: 'two envelopes', body: Buffer.concat([enveloped(binary('echo')), enveloped(binary('echo'))]) },
    { name: 'an envelope and something', body: Buffer.concat([enveloped(binary('echo')), text('x')]) },
    { name: 'a flag of compression without one', body: enveloped(binary('echo'), 1) },
    { name: 'a flag that nobody knows', body: enveloped(binary('echo'), 64) },
    { name: 'no message', body: enveloped(text('\u0007\u0007\u0007')) },
    { name: 'an empty message', body: enveloped(new Uint8Array(0)) },
    { name: 'text that is not Unicode', body: enveloped(new Uint8Array([10, 2, 0xc3, 0x28])) },
    { name: 'a length over the limit', body: enveloped(binary('echo'), 0, 4_000_000_000) },
    ...ofStreams.map((exchange) => ({ ...exchange, name: `stream: ${exchange.name}` })),
  ],
  'application/proto': [...ofAnyFormat(binary), { name: 'no message', body: text('\u0007\u0007') }],
  'application/json': [
    ...ofAnyFormat(json),
    { name: 'no JSON', body: text('{"serviceId": ') },
    { name: 'no object', body: text('[1]') },
    { name: 'an unknown field', body: text('{"serviceId":"echo","serviceID":"x"}') },
    { name: 'a field of another type', body: text('{"serviceId":7}') },
    { name: 'a payload that is no base64', body: text('{"serviceId":"echo","payload":"***"}') },
    { name: 'a field twice', body: text('{"serviceId":"a","serviceId":"echo"}') },
    { name: 'nothing', body: new Uint8Array(0) },
    { name: 'bytes that are not Unicode', body: new Uint8Array([0x22, 0xc3, 0x28, 0x22]) },
    { name: 'depth without end', body: text('['.repeat(20_000)) },
  ],
} as const satisfies Record<string, readonly Exchange[]>

describe.each(Object.entries(formats))('%s', (contentType, exchanges) => {
  test.each(exchanges.map((exchange): [string, Exchange] => [exchange.name, exchange]))('%s', async (_, exchange) => {
    const plain = await ask(contentType, exchange)
    const routed = await ask(contentType.replace('application', 'Application'), exchange)
    expect(plain).toEqual(routed)
    expect(plain.headers[':status']).toBeDefined()
  })
})

test('calls of the short way leave nothing behind', async () => {
  fixture.release()
  await until(() => fixture.server.activeCalls() === 0)
})
