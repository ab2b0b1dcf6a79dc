import { createServer } from 'node:http'
import { context, propagation, ROOT_CONTEXT, trace } from '@opentelemetry/api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createLogger } from './log.ts'
import { startTracing, traceparentOf, withSpan } from './tracing.ts'

interface Export {
  readonly path: string | undefined
  readonly type: string | undefined
  readonly body: Buffer
}

const exported: Export[] = []
const collector = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    exported.push({ path: request.url, type: request.headers['content-type'], body: Buffer.concat(chunks) })
    response.end()
  })
})

beforeAll(() => new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve)))
afterAll(() => {
  collector.closeAllConnections()
  return new Promise((resolve) => collector.close(resolve))
})

// One test in one order: the SDK registers itself once a process.
test('without tracing a span is a plain call; with it, spans reach an OTLP collector and logs carry their ids', async () => {
  const lines: string[] = []
  const log = createLogger({ level: 'info', destination: { write: (line: string) => lines.push(line) } })
  await withSpan('idle', async (span) => {
    expect(span.isRecording()).toBe(false)
    expect(traceparentOf(span)).toBe('')
    log.info('off')
  })
  expect(lines[0]).not.toContain('trace_id')

  const address = collector.address()
  if (address === null || typeof address === 'string') throw new Error('the collector does not listen')
  const tracing = await startTracing({
    endpoint: `http://127.0.0.1:${address.port}/`,
    sampler: 'parentbased_traceidratio',
    ratio: 1,
    log,
  })
  const root = trace.getTracer('test').startSpan('root')
  const failure = new RangeError('too much')
  await context.with(trace.setSpan(ROOT_CONTEXT, root), async () => {
    await withSpan('admit', async (span) => {
      expect(span.spanContext().traceId).toBe(root.spanContext().traceId)
      log.info('on')
      const headers: Record<string, string> = {}
      propagation.inject(context.active(), headers)
      expect(headers.traceparent).toBe(traceparentOf(span))
    })
    await expect(withSpan('settle', () => Promise.reject(failure))).rejects.toBe(failure)
  })
  root.end()
  await tracing.shutdown()

  expect(JSON.parse(lines[1] ?? '')).toMatchObject({ trace_id: root.spanContext().traceId })
  expect(exported.map(({ path, type }) => ({ path, type }))).toEqual([
    { path: '/v1/traces', type: 'application/x-protobuf' },
  ])
  const body = exported[0]?.body.toString('latin1') ?? ''
  for (const text of ['tollgate', 'root', 'admit', 'settle', 'RangeError']) expect(body).toContain(text)
  expect(body).not.toContain('too much')
})
