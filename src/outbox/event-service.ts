import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import type { DeadLetterSchema, EventService, EventSinkSchema } from '../../gen/marketplace/v1/events_pb.ts'
import { appendAudit } from '../audit/append-audit.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { TollgateError } from '../errors.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { subjectOf } from './domain-event.ts'
import type { Outbox, SinkState } from './outbox.ts'
import {
  type DeadLetterRow,
  lockHorizon,
  lockSink,
  reviveDeadLetters,
  rewindSink,
  selectDeadLetters,
} from './sink-store.ts'

export interface EventServiceOptions {
  readonly sql: Sql
  readonly outbox: Pick<Outbox, 'names' | 'status' | 'wake'>
}

/** marketplace.v1.EventService. */
export function createEventService({ sql, outbox }: EventServiceOptions): Handlers<typeof EventService.method> {
  function mustBeConfigured(sink: string): void {
    if (outbox.names.includes(sink)) return
    const configured = outbox.names.length === 0 ? 'no sinks' : outbox.names.join(', ')
    throw new TollgateError(
      'EVENT_SINK_NOT_FOUND',
      `sink: "${sink}" is not configured here; configured: ${configured}`,
      {
        metadata: { sink },
        fields: [{ field: 'sink', description: `must be a configured sink: ${configured}` }],
      },
    )
  }

  return {
    async listEventSinks() {
      return { eventSinks: (await storing(() => outbox.status())).map(sinkMessage) }
    },

    async listDeadLetters({ sink, pageSize, pageToken }) {
      mustBeConfigured(sink)
      const size = pageSizeOf(pageSize)
      const [after = '0'] = parsePageToken(pageToken, 1, (part) => /^\d{1,15}$/.test(part)) ?? []
      const rows = await storing(() => selectDeadLetters(sql, sink, Number(after), size + 1))
      const page = pageOf(rows, size, ({ position }) => [String(position)])
      return { deadLetters: page.rows.map(letterMessage), nextPageToken: page.nextPageToken }
    },

    async replayEvents({ sink, what }, call) {
      mustBeConfigured(sink)
      const replay = async (tx: Transaction): Promise<number> => {
        const position = await lockSink(tx, sink)
        const isRewind = what.case === 'afterPosition'
        const events = isRewind
          ? await rewind(tx, sink, Number(what.value), position ?? 0)
          : await reviveDeadLetters(tx, sink, what.case === 'deadLetters' ? what.value.positions.map(Number) : [])
        const told = isRewind ? { afterPosition: String(what.value), events } : { deadLetters: events }
        await noteReplay(tx, call, sink, JSON.stringify(told))
        return events
      }
      const events = await storing(() => sql.begin(replay))
      outbox.wake()
      return { eventCount: BigInt(events) }
    },
  }
}

async function rewind(tx: Transaction, sink: string, after: number, position: number): Promise<number> {
  const horizon = await lockHorizon(tx)
  if (after < horizon) {
    const text = `after_position: changes after ${after} are not kept any more, those after ${horizon} are`
    throw new TollgateError('RESOURCE_VERSION_TOO_OLD', text, {
      metadata: { resourceVersion: String(after), oldestVersion: String(horizon) },
    })
  }
  if (after > position) {
    const text = `after_position: ${after} is beyond ${position}, up to which the sink was told of changes`
    throw new TollgateError('RESOURCE_VERSION_UNKNOWN', text, {
      metadata: { resourceVersion: String(after), latestVersion: String(position) },
    })
  }
  return rewindSink(tx, sink, after)
}

/** It changes no resource, and is no event itself; but somebody did it. */
async function noteReplay(tx: Transaction, call: Call, sink: string, after: string): Promise<void> {
  const { subject, requestId, address, userAgent } = actorOf(call)
  await appendAudit(tx, {
    kind: 'change',
    action: 'event_sink.replayed',
    actor: subject,
    resource: `event_sink/${sink}`,
    organizationId: '',
    reason: '',
    count: 1,
    requestId,
    address,
    userAgent,
    before: null,
    after,
  })
}

function sinkMessage(sink: SinkState): MessageInitShape<typeof EventSinkSchema> {
  return {
    name: sink.name,
    position: BigInt(sink.position),
    behindCount: BigInt(sink.behind),
    waitingCount: BigInt(sink.waiting),
    deadLetterCount: BigInt(sink.deadLetters),
    ...(sink.lagSeconds > 0 && { lag: durationFromMs(Math.ceil(sink.lagSeconds * 1000)) }),
    holder: sink.holder,
    failure: sink.failing ?? '',
  }
}

function letterMessage(row: DeadLetterRow): MessageInitShape<typeof DeadLetterSchema> {
  return {
    position: BigInt(row.position),
    eventId: row.id,
    type: `tollgate.${row.type}`,
    subject: subjectOf({ resourceKind: row.resource_kind, resourceId: row.resource_id }),
    changeTime: timestampFromDate(row.created_at),
    attempts: row.attempts,
    failure: row.last_error,
    deadTime: timestampFromDate(row.dead_at),
  }
}
