import { SpanKind, SpanStatusCode } from '@opentelemetry/api'
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { as, clientOf, type Fixture, keys, startFixture, until } from './fixture.ts'

type Processor = NonNullable<NodeSDKConfiguration['spanProcessors']>[number]

const spans: Parameters<Processor['onEnd']>[0][] = []
const sdk = new NodeSDK({
  autoDetectResources: false,
  metricReaders: [],
  logRecordProcessors: [],
  spanProcessors: [
    {
      onStart: () => {},
      onEnd: (span) => void spans.push(span),
      forceFlush: async () => {},
      shutdown: async () => {},
    },
  ],
})
let fixture: Fixture
beforeAll(async () => {
  sdk.start()
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
  await sdk.shutdown()
})

test("a call is one server span, child of the caller's, and its log line names the trace", async () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c'
  const headers = { ...as(keys.own).headers, traceparent: `00-${traceId}-b7ad6b7169203331-01` }
  await clientOf(fixture, 'grpc').checkQuota({ serviceId: 's' }, { headers })
  await until(() => spans.length === 1)
  const span = spans[0]
  expect(span).toMatchObject({ name: 'marketplace.v1.ConsumptionService/CheckQuota', kind: SpanKind.SERVER })
  expect(span?.spanContext().traceId).toBe(traceId)
  expect(span?.attributes).toMatchObject({ 'rpc.method': 'CheckQuota', 'rpc.grpc.status_code': 0 })
  expect(fixture.calls.at(-1)?.span.spanContext().traceId).toBe(traceId)
  expect(fixture.lines.some((line) => line.includes(traceId))).toBe(true)
})

test('a refused call is a span too; only failures of ours count as errors', async () => {
  spans.length = 0
  const client = clientOf(fixture, 'grpc')
  await client.checkQuota({ serviceId: 's' }, as('tg_wrong')).catch(() => {})
  await client.routeRequest({ serviceId: 'crash' }, as(keys.own)).catch(() => {})
  await until(() => spans.length === 2)
  expect(spans).toMatchObject([
    { attributes: { 'error.type': 'CREDENTIAL_INVALID' }, status: { code: SpanStatusCode.UNSET } },
    { attributes: { 'error.type': 'INTERNAL' }, status: { code: SpanStatusCode.ERROR } },
  ])
})

test('a call of the OpenAI API is a span too, with the attributes of HTTP', async () => {
  spans.length = 0
  const { address } = fixture.server
  await (await fetch(`${address}/v1/models/alpha`, as(keys.own))).text()
  await (await fetch(`${address}/v1/models/nothing`, as(keys.own))).text()
  await until(() => spans.length === 2)
  const attributes = { 'http.request.method': 'GET', 'http.route': '/v1/models/{model}' }
  expect(spans).toMatchObject([
    { name: 'GET /v1/models/{model}', attributes: { ...attributes, 'http.response.status_code': 200 } },
    { attributes: { ...attributes, 'http.response.status_code': 404, 'error.type': 'SERVICE_NOT_FOUND' } },
  ])
})
