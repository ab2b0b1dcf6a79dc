import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { errorAnswer } from './answers.ts'
import { Exchange } from './exchange.ts'
import { type Fault, FaultBook, parseFault } from './faults.ts'
import { PracticeLog, type PracticeOutcome } from './log.ts'
import { isPlain, play, playPlain } from './play.ts'
import { type PracticeKind, PracticeRequestError, parseObject, parseRequest } from './requests.ts'
import type { PracticeUsage } from './usage.ts'

/** Settings of a practice backend. */
export interface PracticeBackendOptions {
  /** Address to listen on; 127.0.0.1 by default. */
  readonly host?: string
  /** Port to listen on; 0, the default, takes a free one. */
  readonly port?: number
  /** File of the append-only log; without it nothing is logged, and only the counters count. */
  readonly logPath?: string
  /** Also waits for the disk after each line; false by default. */
  readonly syncLog?: boolean
  /** Wait before each answer, in milliseconds, for calls whose fault names no `delay`; 0 by default. */
  readonly defaultDelayMs?: number
  /** Told what the backend itself fails at. */
  readonly log?: { error(fields: object, text: string): void }
}

/** What a practice backend has counted since it started. A call may be both served (or faulted) and aborted. */
export interface PracticeStats {
  /** Calls whose request line arrived. */
  readonly received: number
  /** Calls answered as they should be. */
  readonly served: number
  /** Calls that got a fault. */
  readonly faulted: number
  /** Calls refused as unreadable. */
  readonly rejected: number
  /** Calls whose caller left before the answer was complete. */
  readonly aborted: number
  /** Calls that are not over. */
  readonly inFlight: number
}

/** A running practice backend. */
export interface PracticeBackend {
  /** For example `http://127.0.0.1:8080`, without a slash at the end. */
  readonly url: string
  readonly port: number
  stats(): PracticeStats
  /** Applies a fault, as {@link parseFault} reads it, to the next `times` (1) calls that name none. */
  failNext(fault: string, times?: number): void
  /** Stops listening, destroys what is open and closes the log. Safe to call again. */
  close(): Promise<void>
}

const kinds: Readonly<Record<string, PracticeKind>> = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'text',
  '/v1/embeddings': 'embeddings',
}
const json = 'application/json'

/**
 * Starts an OpenAI-compatible server whose answers and usage depend on the request alone, which fails on request and
 * keeps an exact log: the oracle of every test about money. Each call has its line in the log before it has an answer;
 * a call that its caller left has an `aborted` line (a second one if the answer had begun).
 *
 * A call's fault is the header `x-practice-fault`, else `?fault=` in its address, so that an endpoint can be registered
 * with one, else what follows `practice:` in the model's name. The header
 * `x-practice-usage` (`in=..,out=..,cached=..,reasoning=..`) sets what is reported. `POST /practice/faults` with
 * `{"fault", "times"}` does what `failNext` does, `DELETE` forgets it, `GET /practice/stats` returns the counters.
 */
export async function startPracticeBackend(options: PracticeBackendOptions = {}): Promise<PracticeBackend> {
  const { host = '127.0.0.1', port = 0, logPath, syncLog = false, defaultDelayMs = 0 } = options
  const log = logPath === undefined ? undefined : new PracticeLog(logPath, syncLog)
  const faults = new FaultBook()
  const counters = { received: 0, served: 0, faulted: 0, rejected: 0, aborted: 0, inFlight: 0 }
  const firstSeq = log?.lastSeq ?? 0

  const server = createServer((request, response) => {
    const [path = ''] = (request.url ?? '').split('?', 1)
    const kind = request.method === 'POST' ? kinds[path] : undefined
    if (kind === undefined) answerOther(request, response, path)
    else answerCall(request, response, path, kind)
  })
  server.keepAliveTimeout = 75_000
  server.headersTimeout = 10_000
  server.requestTimeout = 60_000
  server.maxConnections = 10_000

  function answerCall(request: IncomingMessage, response: ServerResponse, path: string, kind: PracticeKind): void {
    counters.received += 1
    counters.inFlight += 1
    const seq = firstSeq + counters.received
    let model: string | null = null
    let stream = false

    const record = (outcome: PracticeOutcome, usage: PracticeUsage | null, deliveredTokens: number): void => {
      log?.append({
        seq,
        time: new Date().toISOString(),
        requestId: header(request, 'x-request-id') ?? null,
        attemptId: header(request, 'x-tollgate-attempt-id') ?? null,
        path,
        model,
        stream,
        outcome,
        usage,
        deliveredTokens,
      })
      if (outcome === 'served' || outcome === 'rejected' || outcome === 'aborted') counters[outcome] += 1
      else counters.faulted += 1
    }
    const exchange = new Exchange(request, response, (aborted) => {
      counters.inFlight -= 1
      if (aborted) guard(exchange, () => record('aborted', null, exchange.deliveredTokens))
    })
    const refuse = (error: unknown): void => {
      if (!(error instanceof PracticeRequestError)) throw error
      record('rejected', null, 0)
      exchange.send(error.status, json, errorAnswer(error.status, error.message))
    }

    exchange.readBody((body) => {
      guard(exchange, () => {
        try {
          if (body === undefined) throw new PracticeRequestError('the body is larger than 16 MiB', 413)
          const parsed = parseRequest(kind, body)
          model = parsed.model.slice(0, 256)
          stream = parsed.stream
          const fault = withUsage(
            faults.take(header(request, 'x-practice-fault') ?? faultOf(request), parsed.model),
            header(request, 'x-practice-usage'),
          )
          const delayMs = fault.delayMs ?? defaultDelayMs
          if (isPlain(parsed, fault, delayMs)) return playPlain(exchange, parsed, fault, record)
          play(exchange, parsed, fault, delayMs, record).catch((error: unknown) => fail(exchange, error))
        } catch (error) {
          refuse(error)
        }
      })
    })
  }

  function answerOther(request: IncomingMessage, response: ServerResponse, path: string): void {
    const exchange = new Exchange(request, response, () => {})
    exchange.readBody((body) => {
      const route = `${request.method} ${path}`
      try {
        if (route === 'GET /healthz') return exchange.send(200, json, '{"status":"ok"}')
        if (route === 'GET /v1/models') return exchange.send(200, json, models)
        if (route === 'GET /practice/stats') return exchange.send(200, json, JSON.stringify(counters))
        if (route === 'DELETE /practice/faults') faults.clear()
        else if (route === 'POST /practice/faults') scheduleFrom(body ?? '')
        else throw new PracticeRequestError('no such route', 404)
        exchange.send(200, json, '{}')
      } catch (error) {
        if (!(error instanceof PracticeRequestError)) return fail(exchange, error)
        exchange.send(error.status, json, errorAnswer(error.status, error.message))
      }
    })
  }

  function scheduleFrom(body: string): void {
    const { fault, times = 1 } = parseObject(body)
    if (typeof fault !== 'string' || typeof times !== 'number')
      throw new PracticeRequestError('fault must be text, and times a number')
    faults.schedule(fault, times)
  }

  function guard(exchange: Exchange, action: () => void): void {
    try {
      action()
    } catch (error) {
      fail(exchange, error)
    }
  }

  /** The backend's own failure, such as a full disk: an answer without its line would make the log worthless. */
  function fail(exchange: Exchange, error: unknown): void {
    options.log?.error({ err: error }, 'practice backend failed')
    exchange.reset()
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  }).catch((error: unknown) => {
    log?.close()
    throw error
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the practice backend has no port')

  let closed: Promise<void> | undefined
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    port: address.port,
    stats: () => ({ ...counters }),
    failNext: (fault, times = 1) => faults.schedule(fault, times),
    close: () => {
      closed ??= new Promise<void>((resolve) => {
        server.close(() => {
          log?.close()
          resolve()
        })
        server.closeAllConnections()
      })
      return closed
    },
  }
}

const models = JSON.stringify({
  object: 'list',
  data: [{ id: 'practice', object: 'model', created: 1_767_225_600, owned_by: 'tollgate' }],
})

function withUsage(fault: Fault, text: string | undefined): Fault {
  return text === undefined ? fault : { ...fault, usage: { ...fault.usage, ...parseFault(text).usage } }
}

function faultOf(request: IncomingMessage): string | undefined {
  const [, query] = (request.url ?? '').split('?', 2)
  return new URLSearchParams(query).get('fault') ?? undefined
}

/** A header's value, clipped to what a line of the log should hold. */
function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name]
  return typeof value === 'string' ? value.slice(0, 256) : undefined
}
