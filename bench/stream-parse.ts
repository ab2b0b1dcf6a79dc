/**
 * `node bench/stream-parse.ts [--json FILE]`
 *
 * What reading a stream costs: MB/s and µs an event of the stream reader, beside the naive way (decode all, split at empty
 * lines, JSON.parse each event, find usage), on the same chunks, in the same run. Streams of 2,000 chat chunks of about
 * 250 bytes, in chunks of 16 KiB (a busy connection), of one event (tokens as they arrive), and of 37 bytes (the worst);
 * once with plain words, and once with words that must be parsed because they have `\u` escapes. Medians of eleven rounds.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { ReadRequest } from '../src/providers/provider.ts'
import { createProvider } from '../src/providers/providers.ts'
import { describeMachine } from './report.ts'

const { values: flags } = parseArgs({ options: { json: { type: 'string' } } })
const tokens = 2_000
const rounds = 11

const provider = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
const request: ReadRequest = {
  kind: 'chat',
  mode: 'stream',
  dialect: 'openai',
  model: 'm',
  maxOutputTokens: undefined,
  choices: 1,
  asksStream: true,
  asksUsage: false,
  payloadBytes: 100,
  startMs: 0,
  body: new Uint8Array(),
}

function composeEvents(words: readonly string[]): string[] {
  const head =
    '"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1767225600,' +
    '"model":"practice-2026-01-01","service_tier":"default","system_fingerprint":"fp_fc9f1d7035"'
  const events: string[] = []
  for (let index = 0; index < tokens; index += 1) {
    const word = words[index % words.length]
    events.push(
      `data: {${head},"choices":[{"index":0,"delta":{"content":" ${word}"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n`,
    )
  }
  events.push(
    `data: {${head},"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n`,
  )
  events.push(`data: {${head},"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":${tokens}}}\n\n`)
  events.push('data: [DONE]\n\n')
  return events
}

function cut(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
  return chunks
}

function readOurs(chunks: readonly Buffer[]): number {
  const reader = provider.openStream(request)
  let bytes = 0
  for (const chunk of chunks) {
    for (const event of reader.push(chunk)) if (event.kind === 'piece') bytes += event.bytes.length
  }
  if (reader.end().verdict !== 'complete' || reader.report().tokens.output !== tokens) throw new Error('misread')
  return bytes
}

/** As it is often written: correct for LF alone, and it finds a malformed chunk, for it parses all of them. */
function readNaively(chunks: readonly Buffer[]): number {
  const decoder = new TextDecoder()
  let text = ''
  let output = 0
  let bytes = 0
  for (const chunk of chunks) {
    text += decoder.decode(chunk, { stream: true })
    const events = text.split('\n\n')
    text = events.pop() ?? ''
    for (const event of events) {
      const data = event.slice('data: '.length)
      if (data === '[DONE]') continue
      const body: { choices: unknown[]; usage: { completion_tokens: number } | null } = JSON.parse(data)
      if (body.usage !== null) output = body.usage.completion_tokens
      if (body.choices.length > 0) bytes += Buffer.byteLength(event) + 2
    }
  }
  if (output !== tokens) throw new Error('misread')
  return bytes
}

interface Row {
  readonly stream: string
  readonly chunks: string
  readonly reader: string
  readonly megabytesPerSecond: number
  readonly microsecondsPerEvent: number
}

function measure(read: (chunks: readonly Buffer[]) => number, chunks: readonly Buffer[]): number {
  const times: number[] = []
  for (let round = 0; round < rounds + 3; round += 1) {
    const started = performance.now()
    for (let pass = 0; pass < 5; pass += 1) read(chunks)
    if (round >= 3) times.push((performance.now() - started) / 5)
  }
  return times.sort((a, b) => a - b)[rounds >> 1] ?? Number.NaN
}

const rows: Row[] = []
for (const [stream, words] of [
  ['plain words', ['the', 'gate', 'counts', 'every', 'token', 'once']],
  ['escaped words', ['the', '\\u2019s', 'counts', 'n\\u00e9', 'token', '\\u201c']],
] as const) {
  const events = composeEvents(words)
  const bytes = Buffer.from(events.join(''))
  for (const [name, chunks] of [
    ['16 KiB', cut(bytes, 16_384)],
    ['one event', events.map((event) => Buffer.from(event))],
    ['37 bytes', cut(bytes, 37)],
  ] as const) {
    for (const [reader, read] of [
      ['naive', readNaively],
      ['stream reader', readOurs],
    ] as const) {
      const ms = measure(read, chunks)
      rows.push({
        stream,
        chunks: name,
        reader,
        megabytesPerSecond: Math.round(bytes.length / ms / 1000),
        microsecondsPerEvent: Math.round((ms / events.length) * 100_000) / 100,
      })
    }
  }
}

const machine = describeMachine(false)
console.log(`${machine.cpu}, Node ${machine.node}, load ${machine.loadBefore}\n`)
console.log('| stream | chunks | reader | MB/s | µs an event |\n|---|---|---|---|---|')
for (const row of rows) {
  console.log(
    `| ${row.stream} | ${row.chunks} | ${row.reader} | ${row.megabytesPerSecond} | ${row.microsecondsPerEvent} |`,
  )
}
if (flags.json !== undefined) writeFileSync(flags.json, JSON.stringify({ machine, rows }, null, 2))
