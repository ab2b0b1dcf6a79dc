import { eventually } from '../test/support/eventually.ts'
import { askGate, callGate } from './call-gate.ts'
import type { Gate } from './gate.ts'
import { refusedMetadata } from './governance.ts'
import { requestBody, services } from './services.ts'

const ledgerWaitMs = 15_000
/** Rates of key, consumer and organization, calls at once, month quota, budget. */
const limitCount = 6

/**
 * One call, looked at from all sides: answer, ledger, policies, limits. Throws when something of it does not govern, for then
 * its speed means nothing.
 */
export async function checkGoverned(gate: Gate): Promise<void> {
  const request = { serviceId: gate.serviceId, payload: requestBody(services.plain).toString('base64') }
  const answer = await callGate(gate.origin, gate.key, 'ConsumptionService/RouteRequest', request)
  if (!JSON.stringify(answer.usage).includes('USAGE_SOURCE_PROVIDER') || answer.cost === undefined)
    throw new Error(`the gate does not meter: ${JSON.stringify({ ...answer, responseData: undefined })}`)
  await checkPolicy(gate, request)
  await checkLimits(gate)
  await checkLedger(gate, String(answer.requestId))
}

async function checkPolicy(gate: Gate, request: object): Promise<void> {
  const call = { ...request, metadata: refusedMetadata }
  const { status, body } = await askGate(gate, 'ConsumptionService/RouteRequest', call)
  if (status !== 403) throw new Error(`no policy decides: ${status} ${JSON.stringify(body.message)}`)
}

async function checkLimits(gate: Gate): Promise<void> {
  const { limits } = await callGate(gate.origin, gate.key, 'ConsumptionService/GetQuota', { serviceId: gate.serviceId })
  const states: unknown[] = Array.isArray(limits) ? limits : []
  const month = states.map((state) => ({ name: String(Object(state).limit), used: Number(Object(state).used ?? 0) }))
  for (const name of ['tokens_per_month', 'cost_per_month'])
    if (!month.some((state) => state.name === name && state.used > 0))
      throw new Error(`nothing is counted in ${name}: ${JSON.stringify(limits)}`)
  const closed = { serviceId: services.closed.name, payload: requestBody(services.closed).toString('base64') }
  const { status } = await askGate(gate, 'ConsumptionService/RouteRequest', closed)
  if (status !== 429) throw new Error(`a limit of nothing lets a call pass: ${status}`)
  if (states.length < limitCount) throw new Error(`${states.length} limits of ${limitCount}: ${JSON.stringify(limits)}`)
}

async function checkLedger(gate: Gate, requestId: string): Promise<void> {
  const record = await eventually(
    async () => {
      const { usageRecords } = await callGate(gate.origin, gate.key, 'UsageService/ListUsageRecords', { requestId })
      const [found]: unknown[] = Array.isArray(usageRecords) ? usageRecords : []
      return found
    },
    { timeoutMs: ledgerWaitMs, giveUpOnError: true, what: () => 'the record of the call in the ledger' },
  )
  if (Object(record).cost === undefined) throw new Error(`a record without a cost: ${JSON.stringify(record)}`)
}
