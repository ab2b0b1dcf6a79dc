import { isSpanContextValid } from '@opentelemetry/api'
import type { Logger } from 'pino'
import type { Call } from '../call.ts'
import { reasons } from '../errors.ts'
import type { Middleware, Outcome } from './middleware.ts'
import type { Rpc } from './server-call.ts'

/** Told of every call once at its start and once at its end, refused ones included. Must not throw. */
export interface CallObserver {
  start(call: Call, rpc: Rpc): void
  end(call: Call, rpc: Rpc, outcome: Outcome): void
}

/**
 * Counts calls and writes the access log: `error` with the cause for INTERNAL, `info` for the other failures of ours,
 * `debug` for the rest. A line never holds a payload, a header value or a credential.
 */
export function observeCalls(observer: CallObserver, log: Logger): Middleware {
  return {
    name: 'observe',
    why: 'before everything that can refuse, so that refused calls are counted and logged too',
    phase: 'headers',
    enter(call) {
      observer.start(call, call.rpc)
    },
    exit(call, outcome) {
      observer.end(call, call.rpc, outcome)
      const { error, ms } = outcome
      const level = error === undefined ? 'debug' : levelOf(reasons[error.reason].grpc)
      if (!log.isLevelEnabled(level)) return
      const span = call.span.spanContext()
      log[level](
        {
          requestId: call.id,
          rpc: call.rpc.name,
          peer: call.peerAddress,
          code: error === undefined ? 0 : reasons[error.reason].grpc,
          ms: Math.round(ms * 1000) / 1000,
          // The call's span is not the active one here, so that the logger cannot add it.
          ...(isSpanContextValid(span) && { trace_id: span.traceId, span_id: span.spanId }),
          ...(error !== undefined && { reason: error.reason }),
          ...(call.principal.kind !== 'anonymous' && { subject: call.principal.subject }),
          ...(level === 'error' && { err: error?.cause }),
        },
        'call',
      )
    },
  }
}

function levelOf(code: number): 'error' | 'info' | 'debug' {
  if (code === 13) return 'error'
  return code === 2 || code === 14 || code === 15 ? 'info' : 'debug'
}
