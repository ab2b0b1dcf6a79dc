/** Who calls: some with room for everything, and some whose month is too small for what they ask. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { LimitName, LimitScope, LimitService } from '../../gen/marketplace/v1/limits_pb.ts'
import type { PricingSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { eventually } from '../support/eventually.ts'
import { makeTenant, type Tenant } from '../support/tenant.ts'
import type { Tollgate } from '../support/tollgate.ts'

/** What a consumer may use in the month of the run, which must not end in it. */
export interface Budget {
  readonly consumerId: string
  readonly unit: 'tokens' | 'nanos'
  readonly amount: number
}

export interface Tenants {
  /** Those with a budget come last, in the order of `budgets`. */
  readonly tenants: readonly Tenant[]
  readonly budgets: readonly Budget[]
}

const withoutBudget = ['north', 'east', 'south', 'west']
const count = withoutBudget.length + 2
/** What a call uses, about; by this a budget lasts for a part of the calls. */
const callTokens = 52
const callNanos = 75_000
const tokensLastFor = 0.6
const moneyLastsFor = 0.35

/** Dearest is what is rarest, so that money is reserved for much more than most calls cost; one rate has to be rounded. */
const price: MessageInitShape<typeof PricingSchema>['model'] = {
  case: 'perToken',
  value: {
    inputNanosPerMillion: 500_333_333n,
    cachedInputNanosPerMillion: 2_000_000_000n,
    cacheWriteInputNanosPerMillion: 4_000_000_000n,
    outputNanosPerMillion: 1_500_000_000n,
    reasoningOutputNanosPerMillion: 6_000_000_000n,
  },
}
const rate = { requestsPerSecond: 100_000n, requestBurst: 100_000n }
const plenty = 1_000_000_000_000n

/** Makes them by the first gateway, with budgets that so many calls run into; resolves when every gateway knows of them. */
export async function makeTenants(
  gateways: readonly [Tollgate, ...Tollgate[]],
  adminKey: string,
  backendUrl: string,
  calls: number,
): Promise<Tenants> {
  const [first] = gateways
  const make = (name: string, tokensPerMonth = plenty): Promise<Tenant> =>
    makeTenant(first, adminKey, name, backendUrl, { ...rate, tokensPerMonth }, price)
  const tenants: Tenant[] = []
  for (const name of withoutBudget) tenants.push(await make(name))

  const tokens = Math.ceil((calls / count) * callTokens * tokensLastFor)
  const nanos = Math.ceil((calls / count) * callNanos * moneyLastsFor)
  const ofTokens = await make('short-of-tokens', BigInt(tokens))
  const ofMoney = await make('short-of-money')
  const limit = {
    scope: LimitScope.ORGANIZATION,
    subjectId: ofMoney.organizationId,
    name: LimitName.COST_PER_MONTH,
    amount: BigInt(nanos),
    currency: 'USD',
  }
  await first.client(LimitService, adminKey).setLimit({ limit })
  tenants.push(ofTokens, ofMoney)
  const budgets: Budget[] = [
    { consumerId: ofTokens.consumerId, unit: 'tokens', amount: tokens },
    { consumerId: ofMoney.consumerId, unit: 'nanos', amount: nanos },
  ]

  for (const gateway of gateways) {
    for (const { serviceId, consumerId, key } of tenants) {
      const budget = budgets.find((one) => one.consumerId === consumerId)
      await eventually(async () => {
        const { limits } = await gateway.client(ConsumptionService, key).getQuota({ serviceId })
        return budget === undefined || limits.some(({ total }) => Number(total) === budget.amount)
      })
    }
  }
  return { tenants, budgets }
}
