import { composeText, embeddingsAnswer, errorAnswer, streamEvents, unaryAnswer } from './answers.ts'
import type { Exchange } from './exchange.ts'
import type { Fault } from './faults.ts'
import { maxDelayMs } from './faults.ts'
import type { PracticeOutcome } from './log.ts'
import type { PracticeRequest } from './requests.ts'
import { computeUsage, type PracticeUsage } from './usage.ts'

/** Writes the call's line to the log; an answer may only begin after it returned. */
export type RecordLine = (outcome: PracticeOutcome, usage: PracticeUsage | null, deliveredTokens: number) => void

const json = 'application/json'
const sse = 'text/event-stream; charset=utf-8'

/** True when {@link playPlain} can answer: nothing to wait for and nothing to get wrong. */
export function isPlain(request: PracticeRequest, fault: Fault, delayMs: number): boolean {
  return fault.kind === 'none' && !request.stream && delayMs === 0
}

/** Answers a call as it should be answered, in one go. */
export function playPlain(exchange: Exchange, request: PracticeRequest, fault: Fault, record: RecordLine): void {
  const usage = computeUsage(request, fault.usage)
  const body = wholeAnswer(request, usage, usage)
  record('served', usage, tokensOf(request, usage))
  exchange.deliveredTokens = tokensOf(request, usage)
  exchange.send(200, json, body)
}

/** Answers a call with its delays and its fault. Returns when the backend has done its part, or the caller has left. */
export async function play(
  exchange: Exchange,
  request: PracticeRequest,
  fault: Fault,
  delayMs: number,
  record: RecordLine,
): Promise<void> {
  if (!(await exchange.wait(delayMs))) return
  const usage = computeUsage(request, fault.usage)
  switch (fault.kind) {
    case 'status': {
      record('status', null, 0)
      const retryAfterS = fault.retryAfterS ?? (fault.status === 429 || fault.status === 503 ? 1 : undefined)
      const headers: Record<string, string> = retryAfterS === undefined ? {} : { 'retry-after': String(retryAfterS) }
      return exchange.send(fault.status, json, errorAnswer(fault.status, 'the fault that was asked for'), headers)
    }
    case 'reset':
      record('reset', null, 0)
      return exchange.reset()
    case 'silence':
      record('silence', null, 0)
      return fallSilent(exchange)
    case 'html':
      record('html', null, 0)
      return exchange.send(200, 'text/html; charset=utf-8', '<!doctype html><title>Welcome</title><h1>It works!</h1>')
    case 'empty':
      record('empty', null, 0)
      return exchange.send(200, request.stream ? sse : json, '')
    default:
      return request.stream
        ? playStream(exchange, request, usage, fault, record)
        : playUnary(exchange, request, usage, fault, record)
  }
}

async function playUnary(
  exchange: Exchange,
  request: PracticeRequest,
  usage: PracticeUsage,
  fault: Fault,
  record: RecordLine,
): Promise<void> {
  const reported = fault.kind === 'missing-usage' ? undefined : usage
  const body = wholeAnswer(request, usage, reported)
  const half = body.slice(0, body.length >> 1)
  const tokens = tokensOf(request, usage)
  switch (fault.kind) {
    case 'cut':
    case 'stall':
      record(fault.kind, null, 0)
      exchange.response.writeHead(200, { 'content-type': json, 'content-length': Buffer.byteLength(body) })
      if (!(await exchange.write(half))) return
      return fault.kind === 'cut' ? exchange.destroy() : fallSilent(exchange)
    case 'malformed':
      record('malformed', null, 0)
      return exchange.send(200, json, half)
    default:
      // A clean early end is a matter of streams: a unary answer comes whole.
      record(fault.kind === 'missing-usage' ? 'missing-usage' : 'served', reported ?? null, tokens)
      exchange.deliveredTokens = tokens
      return exchange.send(200, json, body)
  }
}

async function playStream(
  exchange: Exchange,
  request: PracticeRequest,
  usage: PracticeUsage,
  fault: Fault,
  record: RecordLine,
): Promise<void> {
  const reported = fault.kind === 'missing-usage' ? undefined : usage
  const events = streamEvents(request, composeText(request, usage), reported)
  const broken = fault.kind === 'cut' || fault.kind === 'stall' || fault.kind === 'end'
  const most = broken ? Math.min(fault.afterTokens, events.tokens.length) : events.tokens.length
  const outcome = fault.kind === 'none' ? 'served' : fault.kind
  record(outcome, !broken && request.includeUsage && reported !== undefined ? reported : null, most)

  exchange.response.writeHead(200, { 'content-type': sse, 'cache-control': 'no-cache' })
  exchange.response.flushHeaders()
  if (!(await exchange.wait(fault.firstTokenMs))) return
  if (events.head !== '' && !(await exchange.write(events.head))) return
  for (let index = 0; index < most; index += 1) {
    if (fault.kind === 'malformed' && index === fault.afterTokens && !(await exchange.write(malformedEvent))) return
    if (index > 0 && !(await exchange.wait(fault.paceMs))) return
    if (!(await exchange.write(events.tokens[index] ?? ''))) return
    exchange.deliveredTokens = index + 1
  }
  if (fault.kind === 'malformed' && fault.afterTokens >= most && !(await exchange.write(malformedEvent))) return
  if (fault.kind === 'cut') exchange.destroy()
  else if (fault.kind === 'stall') await fallSilent(exchange)
  else exchange.response.end(fault.kind === 'end' ? undefined : events.tail)
}

const malformedEvent = 'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"\n\n'

/** Says nothing until the caller leaves; a caller that never does is cut off after the longest delay. */
async function fallSilent(exchange: Exchange): Promise<void> {
  if (await exchange.wait(maxDelayMs)) exchange.destroy()
}

function wholeAnswer(request: PracticeRequest, usage: PracticeUsage, reported: PracticeUsage | undefined): string {
  if (request.kind === 'embeddings') return embeddingsAnswer(request, reported)
  return unaryAnswer(request, composeText(request, usage), reported)
}

function tokensOf(request: PracticeRequest, usage: PracticeUsage): number {
  return request.kind === 'embeddings' ? 0 : Math.min(256, usage.completionTokens - usage.reasoningTokens)
}
