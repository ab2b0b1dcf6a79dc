import { TollgateError } from '../errors.ts'
import type { Middleware } from './middleware.ts'
import { deadlineExceeded, type ServerCall } from './server-call.ts'
import { SharedTimeout } from './shared-timeout.ts'

export interface DeadlineOptions {
  /** Applies when the caller names no timeout, in milliseconds. */
  readonly defaultDeadlineMs: number
  /** A longer timeout is shortened to this one: a caller that asks for more is served, not refused. */
  readonly maxDeadlineMs: number
  /** Applies to long-lived streams whose caller names no timeout: their connection ends before it. */
  readonly longLivedMs: number
}

/**
 * Ends the call with DEADLINE_EXCEEDED when its time is up. Whoever waits for the call races against its end, so the caller
 * is answered then, whatever the implementation does.
 */
export function limitDeadlines(options: DeadlineOptions): Middleware {
  const defaultMs = Math.min(options.defaultDeadlineMs, options.maxDeadlineMs, longestTimerMs)
  const unnamed = new SharedTimeout<ServerCall>(defaultMs, (call) => call.abort(deadlineExceeded(defaultMs)))
  return {
    name: 'deadline',
    why: 'before authentication, which may wait for others and must not outlast the caller',
    phase: 'headers',
    enter(call) {
      const asked = askedTimeoutMs(call)
      if (asked === undefined && !call.rpc.longLived) {
        call.deadlineMs = Date.now() + defaultMs
        call.deadline = unnamed.start(call)
        return
      }
      const timeoutMs = call.rpc.longLived
        ? (asked ?? options.longLivedMs)
        : Math.min(asked ?? defaultMs, options.maxDeadlineMs)
      const timerMs = Math.min(timeoutMs, longestTimerMs)
      call.deadlineMs = Date.now() + timerMs
      if (asked === timeoutMs) call.callerTimeoutMs = timeoutMs
      call.deadlineTimer = setTimeout(() => call.abort(deadlineExceeded(timeoutMs)), timerMs)
    },
    exit(call) {
      if (call.deadline !== undefined) unnamed.stop(call.deadline)
      clearTimeout(call.deadlineTimer)
    },
  }
}

/** The timeout that the caller names in milliseconds; throws INVALID_ARGUMENT when it is malformed. */
function askedTimeoutMs(call: ServerCall): number | undefined {
  const grpc = call.header('grpc-timeout')
  if (grpc !== undefined) {
    const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(grpc) ?? []
    if (digits === undefined) throw malformed('grpc-timeout', 'up to 8 digits and one of H, M, S, m, u, n')
    return Number(digits) * (unitMs[unit ?? ''] ?? 1)
  }
  for (const name of ['connect-timeout-ms', 'x-request-timeout-ms']) {
    const value = call.header(name)
    if (value === undefined) continue
    if (!/^\d{1,10}$/.test(value)) throw malformed(name, 'up to 10 digits')
    return Number(value)
  }
  return undefined
}

function malformed(header: string, expected: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `header ${header} is malformed: expected ${expected}`, {
    fields: [{ field: header, description: `expected ${expected}` }],
  })
}

/** https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "TimeoutUnit". */
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 }

/** Node runs longer timers at once. */
const longestTimerMs = 2 ** 31 - 1
