/**
 * A judge that asks another Tollgate, or whoever serves marketplace.v1.PolicyEngine.
 *
 * Every question has a deadline, and goes over one of some connections that stay open. A breaker stops questions to an engine
 * that does not answer, so that calls do not wait for the deadline one by one. What happens then is configured: calls pass
 * unasked (`open`), or are refused with POLICY_UNAVAILABLE (`closed`), which is no denial, and safe to repeat.
 */
import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { PolicyEngine } from '../../gen/marketplace/v1/policy_pb.ts'
import { TollgateError } from '../errors.ts'
import { type BreakerState, createBreakers, type Verdict } from '../routing/breaker.ts'
import { within } from '../within.ts'
import type { FailMode } from './decide.ts'
import { allowed, type Decision } from './decision.ts'
import type { CallFacts } from './facts.ts'
import type { Judge, Question } from './judge.ts'
import { decisionOf, factsMessage, serviceFactsMessage } from './policy-message.ts'

export interface RemoteJudgeOptions {
  /** http or https. */
  readonly url: string
  /** Bearer credential; undefined for none. */
  readonly credential: string | undefined
  /** Longest wait for an answer, connecting included. */
  readonly timeoutMs: number
  /** Connections that are kept. */
  readonly connections: number
  readonly failMode: FailMode
  /** Unix milliseconds. */
  readonly now: () => number
  /** Told of each question's end; must not throw or wait. */
  readonly onAsked: (outcome: RemoteOutcome) => void
  /** Told when the breaker changes, and of the last failure's reason; must not throw. */
  readonly onChange: (state: BreakerState, reason: string | undefined) => void
}

/** "answered", or why there was no answer: no end within the timeout, an error, the breaker. */
export type RemoteOutcome = 'answered' | 'late' | 'failed' | 'stopped'

export interface RemoteJudge extends Judge {
  state(): RemoteState
  /** Closes the connections; questions under way fail. */
  close(): void
}

export interface RemoteState {
  readonly breaker: BreakerState
  /** Why the last question had no answer; undefined when it had one. */
  readonly failing: string | undefined
  readonly failMode: FailMode
}

const engine = 'policy-engine'
const breakerFailures = 5
const breakerWindowMs = 10_000
const breakerResetMs = 1_000

export function createRemoteJudge(options: RemoteJudgeOptions): RemoteJudge {
  const { timeoutMs, failMode, onAsked, onChange } = options
  let connections = connect(options)
  let failing: string | undefined
  const breakers = createBreakers({
    failures: breakerFailures,
    windowMs: breakerWindowMs,
    resetMs: breakerResetMs,
    judge: verdictOf,
    now: options.now,
    onChange(_, state) {
      // Whatever the connections lead to does not answer: the probe finds out whether new ones do.
      if (state === 'open') {
        connections.abort()
        connections = connect(options)
      }
      onChange(state, failing)
    },
  })

  async function ask(question: Question, facts: CallFacts, payload: Uint8Array | undefined): Promise<Decision> {
    const asked = connections
    try {
      return await within(timeoutMs, answer(asked.next(), question, facts, payload), lateAnswer)
    } catch (error) {
      // What becomes of connections that were given up says nothing of those that took their place.
      throw asked === connections ? error : new GivenUp(error)
    }
  }

  function answer(
    client: EngineClient,
    question: Question,
    facts: CallFacts,
    payload: Uint8Array = new Uint8Array(),
  ): Promise<Decision> {
    const serviceId = facts.service.id
    switch (question) {
      case 'call': {
        const asked = { serviceId, facts: factsMessage(facts), payload }
        return client.validateConsumption(asked, { timeoutMs }).then(decisionOf)
      }
      case 'residency':
        return client.verifyDataResidency({ serviceId, facts: factsMessage(facts) }, { timeoutMs }).then(decisionOf)
      case 'service': {
        const asked = { serviceId, facts: serviceFactsMessage(facts.service) }
        return client.validateService(asked, { timeoutMs }).then(decisionOf)
      }
    }
  }

  function unanswered(thrown: unknown): Decision {
    const error = thrown instanceof GivenUp ? thrown.cause : thrown
    const outcome = outcomeOf(error)
    if (outcome !== 'stopped' && error === thrown) failing = reasonOf(error, timeoutMs)
    onAsked(outcome)
    if (failMode === 'open') return allowed
    throw new TollgateError(
      'POLICY_UNAVAILABLE',
      'The policy engine does not answer, and no call may pass unasked (POLICY_FAIL_MODE=closed).',
      { cause: error },
    )
  }

  return {
    decidesCalls: () => true,
    async judge(question, facts, payload) {
      try {
        const decision = await breakers.run(engine, () => ask(question, facts, payload))
        failing = undefined
        onAsked('answered')
        return decision
      } catch (error) {
        return unanswered(error)
      }
    },
    state: () => ({ breaker: breakers.states().get(engine) ?? 'closed', failing, failMode }),
    close() {
      breakers.close()
      connections.abort()
    },
  }
}

type EngineClient = Client<typeof PolicyEngine>

/** Some connections, opened when they are first needed. */
interface Connections {
  /** They are taken in turn. */
  next(): EngineClient
  abort(): void
}

function connect({ url, credential, connections }: RemoteJudgeOptions): Connections {
  // Without pings: a ping on a connection that just broke is thrown where nobody can catch it (connect-node 2.2).
  const sessions = Array.from({ length: connections }, () => new Http2SessionManager(url))
  const interceptors = credential === undefined ? [] : [withCredential(credential)]
  const clients = sessions.map((sessionManager) =>
    createClient(PolicyEngine, createGrpcTransport({ baseUrl: url, sessionManager, interceptors })),
  )
  let turn = 0
  return {
    next() {
      turn += 1
      const client = clients[turn % clients.length]
      if (client === undefined) throw new Error('a remote judge has no connections')
      return client
    },
    abort() {
      for (const session of sessions) session.abort()
    },
  }
}

/** The end of a question whose connection was given up meanwhile. */
class GivenUp extends Error {
  constructor(cause: unknown) {
    super('the connection was given up', { cause })
  }
}

function withCredential(credential: string): Interceptor {
  return (send) => (request) => {
    request.header.set('authorization', `Bearer ${credential}`)
    return send(request)
  }
}

function lateAnswer(): Error {
  return new ConnectError('no answer in time', Code.DeadlineExceeded)
}

/** What is wrong with one question says nothing of the engine. */
function verdictOf(error: unknown): Verdict {
  if (error instanceof GivenUp) return 'unknown'
  const { code } = ConnectError.from(error)
  return code === Code.InvalidArgument || code === Code.ResourceExhausted ? 'healthy' : 'failing'
}

function outcomeOf(error: unknown): RemoteOutcome {
  if (error instanceof TollgateError && error.reason === 'BREAKER_OPEN') return 'stopped'
  return ConnectError.from(error).code === Code.DeadlineExceeded ? 'late' : 'failed'
}

/** For people; the texts of others stay out of it. */
function reasonOf(error: unknown, timeoutMs: number): string {
  const { code } = ConnectError.from(error)
  return code === Code.DeadlineExceeded ? `no answer within ${timeoutMs} ms` : `gRPC status ${Code[code]}`
}
