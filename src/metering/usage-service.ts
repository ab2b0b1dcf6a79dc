import type { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import type { UnaryService } from '../call.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { pageSizeOf } from '../page-token.ts'
import type { Sql } from '../storage/postgres.ts'
import { usageRecordMessage } from './messages.ts'
import { listUsageRecords } from './usage-store.ts'

/** marketplace.v1.UsageService: what the ledger holds, to whom it belongs. */
export function createUsageService({ sql }: { readonly sql: Sql }): UnaryService<typeof UsageService.method> {
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
  }
}
