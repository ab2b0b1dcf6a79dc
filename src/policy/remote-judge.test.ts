import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2'
import { setTimeout as delay } from 'node:timers/promises'
import { create } from '@bufbuild/protobuf'
import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  PolicyDecisionSchema,
  PolicyEngine,
  PolicyOutcome,
  type ValidateConsumptionRequest,
} from '../../gen/marketplace/v1/policy_pb.ts'
import { callFacts } from '../../test/support/call-facts.ts'
import { eventually } from '../../test/support/eventually.ts'
import type { FailMode } from './decide.ts'
import { type CallFacts, noRequest } from './facts.ts'
import { statedFacts } from './policy-message.ts'
import { createRemoteJudge, type RemoteJudge, type RemoteOutcome } from './remote-judge.ts'

const facts: CallFacts = {
  ...callFacts,
  consumer: { ...callFacts.consumer, projectId: 'p' },
  service: { ...callFacts.service, certifications: ['soc2'], tags: ['t'], labels: { a: 'b' } },
  request: { ...noRequest, model: 'm', kind: 'chat', size: 7, costNanos: 5, currency: 'USD', metadata: { team: 'a' } },
  timeMs: 1_763_700_000_123,
}
const credential = 'a-credential-for-tests'

/** An engine that denies everything, and does whatever else it is told. */
class Engine {
  readonly asked: ValidateConsumptionRequest[] = []
  readonly credentials: (string | null)[] = []
  delayMs = 0
  failure: Code | undefined
  port = 0
  #server: Http2Server | undefined
  readonly #sessions = new Set<ServerHttp2Session>()

  async start(): Promise<void> {
    const routes = (router: ConnectRouter): void => {
      router.service(PolicyEngine, {
        validateConsumption: async (request, { requestHeader }) => {
          this.asked.push(request)
          this.credentials.push(requestHeader.get('authorization'))
          await delay(this.delayMs)
          if (this.failure !== undefined) throw new ConnectError('no', this.failure)
          return create(PolicyDecisionSchema, {
            reason: 'never',
            violations: [
              {
                policyId: 'p1',
                policyName: 'never',
                policyVersion: 3n,
                severity: 'warning',
                message: 'never',
                outcome: PolicyOutcome.DENIED,
              },
            ],
          })
        },
        verifyDataResidency: () => create(PolicyDecisionSchema, { allowed: true }),
        validateService: ({ facts: stated }) =>
          create(PolicyDecisionSchema, { allowed: stated?.name === 'chat', reason: 'another name' }),
      })
    }
    const server = createServer(connectNodeAdapter({ routes }))
    server.on('session', (session) => this.#sessions.add(session.once('close', () => this.#sessions.delete(session))))
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve))
    const address = server.address()
    if (address !== null && typeof address !== 'string') this.port = address.port
    this.#server = server
  }

  /** As a process that is killed: every connection breaks, and nobody listens any more. */
  async kill(): Promise<void> {
    const ended = new Promise((resolve) => this.#server?.close(resolve) ?? resolve(undefined))
    for (const session of this.#sessions) session.destroy()
    await ended
    this.#server = undefined
  }
}

let engine: Engine
let judges: RemoteJudge[]
let outcomes: RemoteOutcome[]

beforeEach(async () => {
  engine = new Engine()
  judges = []
  outcomes = []
  await engine.start()
})

afterEach(async () => {
  for (const judge of judges) judge.close()
  await engine.kill()
})

function judgeOf(failMode: FailMode, timeoutMs = 5_000): RemoteJudge {
  const judge = createRemoteJudge({
    url: `http://127.0.0.1:${engine.port}`,
    credential,
    timeoutMs,
    connections: 2,
    failMode,
    now: Date.now,
    onAsked: (outcome) => outcomes.push(outcome),
    onChange: () => {},
  })
  judges.push(judge)
  return judge
}

/** "denied" by the engine, "allowed" without an answer, or the reason of the refusal. */
async function outcomeOf(judge: RemoteJudge): Promise<string> {
  try {
    return (await judge.judge('call', facts, Buffer.from('{}'))).allowed ? 'allowed' : 'denied'
  } catch (error) {
    return error instanceof Error && 'reason' in error ? String(error.reason) : String(error)
  }
}

const unasked: Readonly<Record<FailMode, string>> = { open: 'allowed', closed: 'POLICY_UNAVAILABLE' }

test('the engine gets all facts, the payload and the credential, and its decision arrives', async () => {
  const judge = judgeOf('closed')
  expect(await judge.judge('call', facts, Buffer.from('{"a":1}'))).toEqual({
    allowed: false,
    reason: 'never',
    marks: [],
    violations: [
      {
        policyId: 'p1',
        policyName: 'never',
        policyVersion: 3,
        severity: 'warning',
        message: 'never',
        outcome: 'denied',
      },
    ],
  })
  const [asked] = engine.asked
  expect(statedFacts(asked?.facts, 0)).toEqual(facts)
  expect(Buffer.from(asked?.payload ?? []).toString()).toBe('{"a":1}')
  expect(engine.credentials).toEqual([`Bearer ${credential}`])
  expect(await judge.judge('residency', facts)).toMatchObject({ allowed: true })
  expect(await judge.judge('service', facts)).toMatchObject({ allowed: true })
})

describe.each(['open', 'closed'] as const)('with fail mode %s', (failMode) => {
  test('a call does not wait for an engine that takes twice its time', async () => {
    const judge = judgeOf(failMode, 100)
    engine.delayMs = 200
    expect(await outcomeOf(judge)).toBe(unasked[failMode])
    expect(outcomes).toEqual(['late'])
    expect(judge.state()).toMatchObject({ failing: 'no answer within 100 ms' })
  })

  test('calls under way and calls that come end alike when the engine is killed, and it is asked again when it is back', async () => {
    const judge = judgeOf(failMode)
    const seen: string[] = []
    let isOver = false
    const callers = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        seen.push(await outcomeOf(judge))
        await delay(1)
      }
    })
    await eventually(() => seen.length > 50)
    expect(new Set(seen)).toEqual(new Set(['denied']))
    await engine.kill()
    await eventually(() => judge.state().breaker === 'open')
    await eventually(() => outcomes.includes('stopped'))
    expect(new Set(seen)).toEqual(new Set(['denied', unasked[failMode]]))
    await engine.start()
    await eventually(() => judge.state().breaker === 'closed')
    await eventually(() => seen.at(-1) === 'denied')
    isOver = true
    await Promise.all(callers)
    expect(new Set(seen)).toEqual(new Set(['denied', unasked[failMode]]))
    expect(judge.state()).toEqual({ breaker: 'closed', failing: undefined, failMode })
  })

  test('an engine that refuses the credential is no answer', async () => {
    const judge = judgeOf(failMode)
    engine.failure = Code.Unauthenticated
    expect(await outcomeOf(judge)).toBe(unasked[failMode])
    expect(judge.state().failing).toBe('gRPC status Unauthenticated')
  })
})

test('a question that the engine cannot take does not keep others from being asked', async () => {
  const judge = judgeOf('closed')
  engine.failure = Code.ResourceExhausted
  for (let count = 0; count < 10; count += 1) expect(await outcomeOf(judge)).toBe('POLICY_UNAVAILABLE')
  expect(judge.state().breaker).toBe('closed')
  engine.failure = undefined
  expect(await outcomeOf(judge)).toBe('denied')
})
