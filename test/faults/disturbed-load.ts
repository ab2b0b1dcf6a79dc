import type { Tenant } from '../support/tenant.ts'
import { planCall } from './call-plan.ts'
import { createDisturbance } from './disturbance.ts'
import { type FaultTargets, playFault } from './fault-target.ts'
import { createGatewayClient } from './gateway-client.ts'
import { type LoadResult, runLoad } from './load.ts'
import type { Scenario } from './scenarios.ts'

/** What a load needs of the world. */
export interface Stage {
  readonly tenants: readonly Tenant[]
  /** The last tenants have one each. */
  readonly budgets: readonly unknown[]
  /** Where callers reach the gateways. */
  readonly addresses: readonly string[]
  /** What the schedule breaks. */
  readonly targets: FaultTargets
}

export interface DisturbedLoadOptions {
  readonly seed: number
  readonly scenario: Scenario
  /** Calls at once. */
  readonly callers: number
  /** Told of each fault. */
  readonly say: (line: string) => void
  readonly signal: AbortSignal
}

export interface DisturbedLoad extends LoadResult {
  /** Faults that were played, by action and target. */
  readonly faults: ReadonlyMap<string, number>
  /** Answers while a target was in a fault, by target. */
  readonly answeredDuring: ReadonlyMap<string, number>
}

/** Makes the calls of a scenario while its schedule is played; everything is healed when it returns or throws. */
export async function runDisturbedLoad(
  { tenants, budgets, targets, addresses }: Stage,
  { scenario, seed, callers, signal, say }: DisturbedLoadOptions,
): Promise<DisturbedLoad> {
  const gateways = addresses.map(createGatewayClient)
  const answeredDuring = new Map<string, number>()
  const disturbance = createDisturbance({
    schedule: scenario.schedule,
    play: (fault) => playFault(targets, fault, signal),
    leadCalls: 2 * callers,
    onChange: say,
    signal,
  })
  let finished = 0
  try {
    const planner = {
      seed,
      tenants: tenants.length,
      budgets: budgets.length,
      gateways: gateways.length,
      backendFaults: scenario.backendFaults,
      hasKeyless: scenario.hasKeyless === true,
    }
    const load = await runLoad({
      plan: (index) => planCall(planner, index),
      tenants,
      gateways,
      callers,
      timeoutMs: scenario.callTimeoutMs,
      admits: async (index) => {
        await disturbance.reached(index)
        return index < scenario.calls || !disturbance.isOver()
      },
      onEnd: ({ answers }) => {
        finished += 1
        if (answers.length > 0) {
          for (const name of disturbance.active()) answeredDuring.set(name, (answeredDuring.get(name) ?? 0) + 1)
        }
        disturbance.progress(finished)
      },
      signal,
    })
    await disturbance.settled()
    signal.throwIfAborted()
    return { ...load, faults: disturbance.played, answeredDuring }
  } finally {
    for (const gateway of gateways) gateway.close()
    await disturbance.settled().catch(() => {})
  }
}
