import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt'
import type { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { pageSizeOf } from '../page-token.ts'
import { chargeFor } from '../pricing/price.ts'
import { consumerNotFound, serviceNotFound } from '../registry/not-found.ts'
import { priceAt } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Sql } from '../storage/postgres.ts'
import { type BookedCost, correctRecord } from './correct-record.ts'
import { correctedTokens, usageRecordMessage, usageSourceOf } from './messages.ts'
import { usageStatsMessage } from './stats-message.ts'
import { periodOf } from './stats-period.ts'
import type { TokenParts, UsageEvent } from './usage-event.ts'
import { usageStatistics } from './usage-stats.ts'
import { listUsageRecords } from './usage-store.ts'

export interface UsageServiceOptions {
  readonly sql: Sql
  /** Unix milliseconds. */
  readonly now: () => number
  /** Where the prices are that a correction is priced by. */
  readonly snapshots: Pick<SnapshotSource, 'current'>
  /**
   * Told of the two entries of a correction once the ledger has them, and told again when the request is repeated: it
   * must take the same entries twice. When it rejects, the caller is told so and may repeat. Default: nothing.
   */
  readonly onCorrected?: (entries: readonly UsageEvent[]) => Promise<void>
}

/** marketplace.v1.UsageService: what the ledger holds, to whom it belongs. */
export function createUsageService(options: UsageServiceOptions): Handlers<typeof UsageService.method> {
  const { sql, now, snapshots, onCorrected } = options

  /** By the price that the record names, else by the one in force when its call started. */
  function priceOf(record: UsageEvent, tokens: TokenParts): BookedCost {
    const service = snapshots.current().servicesById.get(record.serviceId)
    if (service === undefined) throw serviceNotFound(record.serviceId)
    const named = service.prices.find(({ version }) => version === record.priceVersion)
    return chargeFor(named ?? priceAt(service, record.startMs), tokens)
  }

  /** Own, or the one that is named, which must be there. Throws CONSUMER_NOT_FOUND and as {@link ownConsumer}. */
  function consumerOf(named: string, { principal }: Call): string {
    const consumerId = ownConsumer(named, principal)
    const isOwn = principal.kind !== 'anonymous' && principal.consumerId === consumerId
    if (isOwn || snapshots.current().consumersById.has(consumerId)) return consumerId
    throw consumerNotFound(consumerId, 'consumer_id')
  }

  return {
    listUsageRecords: async (request, call) => {
      const page = await listUsageRecords(sql, {
        consumerId: consumerOf(request.consumerId, call),
        requestId: request.requestId,
        pageSize: pageSizeOf(request.pageSize),
        pageToken: request.pageToken,
      })
      const usageRecords = page.records.map(({ event, recordedMs }) => usageRecordMessage(event, recordedMs))
      return { usageRecords, nextPageToken: page.nextPageToken }
    },
    getUsageStats: async (request, call) => {
      const subject = { consumerId: consumerOf(request.consumerId, call), serviceId: request.serviceId }
      const asked = { days: request.days, startMs: msOf(request.startTime), endMs: msOf(request.endTime) }
      const statistics = await usageStatistics(sql, { ...subject, period: periodOf(asked, now()) })
      return usageStatsMessage(subject, statistics)
    },
    correctUsageRecord: async ({ recordId, requestId, reason, usage, cost }, call) => {
      const tokens = correctedTokens(usage)
      const { reversal, rebooking } = await correctRecord(sql, {
        actor: actorOf(call),
        recordId,
        requestId,
        reason,
        tokens,
        usageSource: usageSourceOf(usage?.source),
        cost: cost === undefined ? undefined : { nanos: Number(cost.amountNanos), currency: cost.currency },
        priceOf: (record) => priceOf(record, tokens),
      })
      await onCorrected?.([reversal, rebooking])
      return { reversal: usageRecordMessage(reversal), rebooking: usageRecordMessage(rebooking) }
    },
  }
}

function msOf(timestamp: Timestamp | undefined): number | undefined {
  return timestamp === undefined ? undefined : timestampMs(timestamp)
}
