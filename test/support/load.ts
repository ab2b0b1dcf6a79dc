import { setTimeout as delay } from 'node:timers/promises'
import { ConnectError } from '@connectrpc/connect'
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService, type RouteRequestResponse } from '../../gen/marketplace/v1/consumption_pb.ts'
import { chat } from './payloads.ts'
import type { Tenant } from './tenant.ts'
import type { Tollgate } from './tollgate.ts'

export interface LoadOptions {
  /** Decides every request: what is asked, how long the backend takes, and what it does wrong. */
  readonly seed: number
  readonly tenant: Tenant
  /** The gateway to call next; callers wait for it while it restarts. */
  readonly gateway: () => Promise<Tollgate>
  /** Deadline of each call; default 20 s, which no call should need. */
  readonly timeoutMs?: number
  /** Calls in flight; default 16. */
  readonly callers?: number
}

/** Callers that go on until they are told to stop, whatever becomes of their calls. */
export interface Load {
  readonly answers: readonly RouteRequestResponse[]
  readonly failures: readonly Failure[]
  /** Resolves when every caller has ended its last call. */
  stop(): Promise<void>
}

export interface Failure {
  /** Of the error's details; empty when the connection broke. */
  readonly reason: string
  readonly error: ConnectError
  /** The request asked for it: a fault of the backend, or a deadline that is too short. */
  readonly isPlanned: boolean
}

/** Starts the callers. Each waits 20 ms after a failed call, as a well-behaved caller would. */
export function startLoad({ seed, tenant, gateway, timeoutMs = 20_000, callers = 16 }: LoadOptions): Load {
  const next = random(seed)
  const answers: RouteRequestResponse[] = []
  const failures: Failure[] = []
  let stopped = false

  async function caller(): Promise<void> {
    while (!stopped) {
      const plan = planCall(next)
      const consumption = (await gateway()).client(ConsumptionService, tenant.key)
      const request = { serviceId: tenant.serviceId, payload: chat(plan.content, `practice:${plan.fault}`, 48) }
      try {
        answers.push(await consumption.routeRequest(request, { timeoutMs: plan.timeoutMs ?? timeoutMs }))
      } catch (cause) {
        const error = ConnectError.from(cause)
        const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? ''
        failures.push({ reason, error, isPlanned: plan.reasons.includes(reason) })
        await delay(20)
      }
    }
  }

  const ended = Promise.all(Array.from({ length: callers }, caller))
  return {
    answers,
    failures,
    stop: async () => {
      stopped = true
      await ended
    },
  }
}

interface Plan {
  readonly content: string
  readonly fault: string
  readonly timeoutMs: number | undefined
  readonly reasons: readonly string[]
}

function planCall(next: () => number): Plan {
  const content = 'x '.repeat(1 + Math.floor(next() * 60))
  const wait = `delay=${Math.floor(next() * 40)}`
  const plan = (fault: string, reasons: string[] = [], timeoutMs?: number): Plan => ({
    content,
    fault,
    reasons,
    timeoutMs,
  })
  const dice = next()
  if (dice < 0.05) return plan('delay=300', ['DEADLINE_EXCEEDED', ''], 60)
  if (dice < 0.1) return plan(`${wait},status=400`, ['BACKEND_REJECTED'])
  if (dice < 0.15) return plan(`${wait},cut`, ['BACKEND_FAILED', 'BACKEND_ANSWER_INVALID'])
  if (dice < 0.2) return plan(`${wait},missing-usage`)
  if (dice < 0.3) return plan(`${wait},in=90,out=${Math.floor(next() * 900)},cached=40`)
  return plan(wait)
}

/** Numbers from 0 to 1 that depend on the seed alone (mulberry32, public domain). */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}
