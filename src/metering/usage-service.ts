import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt'
import type { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import type { UnaryService } from '../call.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { pageSizeOf } from '../page-token.ts'
import type { Sql } from '../storage/postgres.ts'
import { usageRecordMessage } from './messages.ts'
import { usageStatsMessage } from './stats-message.ts'
import { periodOf } from './stats-period.ts'
import { usageStatistics } from './usage-stats.ts'
import { listUsageRecords } from './usage-store.ts'

export interface UsageServiceOptions {
  readonly sql: Sql
  /** Unix milliseconds. */
  readonly now: () => number
}

/** marketplace.v1.UsageService: what the ledger holds, to whom it belongs. */
export function createUsageService({ sql, now }: UsageServiceOptions): UnaryService<typeof UsageService.method> {
  return {
    listUsageRecords: async (request, call) => {
      const page = await listUsageRecords(sql, {
        consumerId: ownConsumer(request.consumerId, call.principal),
        requestId: request.requestId,
        pageSize: pageSizeOf(request.pageSize),
        pageToken: request.pageToken,
      })
      return { usageRecords: page.events.map(usageRecordMessage), nextPageToken: page.nextPageToken }
    },
    getUsageStats: async (request, call) => {
      const subject = { consumerId: ownConsumer(request.consumerId, call.principal), serviceId: request.serviceId }
      const asked = { days: request.days, startMs: msOf(request.startTime), endMs: msOf(request.endTime) }
      const statistics = await usageStatistics(sql, { ...subject, period: periodOf(asked, now()) })
      return usageStatsMessage(subject, statistics)
    },
  }
}

function msOf(timestamp: Timestamp | undefined): number | undefined {
  return timestamp === undefined ? undefined : timestampMs(timestamp)
}
