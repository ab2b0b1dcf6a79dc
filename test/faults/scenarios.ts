/** What a run can be about: what is broken, and what must be seen of it beside the oracles. */
import { planSchedule, type Schedule, withWorkerKills } from './schedule.ts'
import type { Sample } from './watch.ts'

export interface Scenario {
  /** Calls are made until there are so many and every fault is over. */
  readonly calls: number
  readonly schedule: Schedule
  /** Whether the backend fails, too. */
  readonly backendFaults: boolean
  /** Whether most calls have no idempotency key. Default false. */
  readonly hasKeyless?: boolean
  /** Settings of the gateways. */
  readonly env?: Readonly<Record<string, string>>
  /** Deadline of each try. */
  readonly callTimeoutMs: number
  /** Whether a key is answered once: kept answers are gone when Redis loses its data. */
  readonly keysAreKept: boolean
  /** Whether no budget may be passed. */
  readonly budgetsHold: boolean
  /** What was not seen that should have been. */
  readonly missed: (seen: Seen) => string[]
}

/** What came of the calls while a server was away, and what the gateways said of themselves. */
export interface Seen {
  readonly answeredDuring: ReadonlyMap<string, number>
  /** Tries that failed for no reason of their plan. */
  readonly failedTries: ReadonlyMap<string, number>
  /** Calls that a budget refused. */
  readonly refused: number
  readonly samples: readonly Sample[]
}

/** What the gateways do with calls while Redis is away. */
export type AwayMode = 'closed' | 'open' | 'local'

/** The setting that says so. */
export const awayModeVariable = 'LIMITS_WHEN_REDIS_IS_AWAY'

/** The setting that says how many workers a gateway has. */
export const workersVariable = 'WORKERS'

/** Short, because a call whose gateway died is recorded 15 s after its deadline. */
const shortMs = 3_000
/** Longer than any call should need, where every failure of a try counts. */
const longMs = 20_000

/** Resident memory of a gateway may grow so far over what it had when the fault began. */
const mostGrowthBytes = 256 * 1024 * 1024

/** How the gateways of a seeded run are, by their settings. */
export interface GatewayKind {
  /** Default closed. */
  readonly mode?: AwayMode
  /** Worker processes of each gateway, which are killed one by one, too; default 1, which is the gateway itself. */
  readonly workers?: number
}

/** Everything is broken in every way, in an order that the seed decides. */
export function seeded(seed: number, calls: number, { mode = 'closed', workers = 1 }: GatewayKind = {}): Scenario {
  const schedule = planSchedule(seed, calls)
  return {
    calls,
    schedule: workers > 1 ? withWorkerKills(schedule, calls) : schedule,
    backendFaults: true,
    callTimeoutMs: shortMs,
    keysAreKept: mode === 'closed',
    budgetsHold: mode === 'closed',
    missed: ({ refused }) => missing(refused > 0, 'no call was refused by a budget'),
  }
}

/** The same where gateways take slices of limits, the largest that they may: of most calls, those without a key. */
export function sliced(seed: number, calls: number, kind: GatewayKind = {}): Scenario {
  const scenario = seeded(seed, calls, kind)
  return {
    ...scenario,
    hasKeyless: true,
    env: { ADMISSION_LEASES: '50' },
    missed: (seen) => [
      ...scenario.missed(seen),
      ...missing(
        seen.samples.some(({ sliceAdmissions }) => sliceAdmissions > 0),
        'no call was admitted from a slice',
      ),
    ],
  }
}

/** Postgres is killed and stays away: calls go on, and what they used waits for it. */
export function postgresAway(forMs: number): Scenario {
  const atCall = 200
  return {
    calls: 2 * atCall,
    schedule: [{ atCall, target: 'postgres', action: 'kill', forMs }],
    backendFaults: false,
    callTimeoutMs: longMs,
    keysAreKept: true,
    budgetsHold: true,
    missed: ({ answeredDuring, failedTries, samples }) => [
      ...missing((answeredDuring.get('postgres') ?? 0) > 0, 'no call was answered while Postgres was away'),
      ...[...failedTries].map(([reason, count]) => `${count} tries failed with ${reason || 'a broken connection'}`),
      ...missing(
        samples.some(({ backlog = 0 }) => backlog > 0),
        'tollgate_usage_backlog did not show what waited',
      ),
      ...missing(samples.some(isDegraded), 'health did not say that the gate was degraded'),
      ...missing(growthBytes(samples) < mostGrowthBytes, `a gateway grew by ${growthBytes(samples)} bytes`),
    ],
  }
}

/** Redis is killed, and comes back with what its append-only file holds. Claims are not shared while it is away. */
export function redisRestart(calls: number, mode: AwayMode): Scenario {
  const awayMs = 2_000
  return {
    calls,
    schedule: [{ atCall: Math.floor(calls / 3), target: 'redis', action: 'kill', forMs: awayMs }],
    backendFaults: true,
    callTimeoutMs: longMs,
    keysAreKept: mode === 'closed',
    budgetsHold: mode === 'closed',
    missed: ({ answeredDuring, failedTries, samples }) => {
      const refused = failedTries.get('LIMITS_UNAVAILABLE') ?? 0
      const others = [...failedTries].filter(([reason]) => reason !== 'LIMITS_UNAVAILABLE')
      return [
        ...others.map(([reason, count]) => `${count} tries failed with ${reason || 'a broken connection'}`),
        ...(mode === 'closed'
          ? [
              ...missing(refused > 0, 'no call was refused while Redis was away'),
              ...missing(
                samples.some(({ health }) => health.includes('down')),
                'health did not say that the gate was down',
              ),
            ]
          : [
              ...missing((answeredDuring.get('redis') ?? 0) > 0, 'no call was answered while Redis was away'),
              ...missing(samples.some(isDegraded), 'health did not say that the gate was degraded'),
            ]),
      ]
    },
  }
}

/**
 * Redis loses everything that it holds, under load. Nothing else breaks, and the seeded schedule has no such fault: what a
 * gateway knew that died before, nobody gives back.
 */
export function flushAll(calls: number): Scenario {
  const flush = { target: 'redis', action: 'flush', forMs: 0 } as const
  const schedule = [1, 2, 3].map((quarter) => ({ atCall: Math.floor((calls * quarter) / 4), ...flush }))
  return {
    calls,
    schedule,
    backendFaults: true,
    callTimeoutMs: longMs,
    keysAreKept: false,
    budgetsHold: true,
    missed: () => [],
  }
}

/** Most memory that a gateway had over what it had at first. */
export function growthBytes(samples: readonly Sample[]): number {
  const first = samples[0]?.rssBytes ?? []
  const growth = samples.flatMap(({ rssBytes }) => rssBytes.map((bytes, index) => bytes - (first[index] ?? bytes)))
  return Math.max(0, ...growth)
}

function isDegraded({ health }: Sample): boolean {
  return health.includes('degraded')
}

function missing(isSeen: boolean, text: string): string[] {
  return isSeen ? [] : [text]
}
