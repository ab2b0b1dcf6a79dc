import { AuditService } from '../../../gen/marketplace/v1/audit_pb.ts'
import { ConsumptionService } from '../../../gen/marketplace/v1/consumption_pb.ts'
import { EventService } from '../../../gen/marketplace/v1/events_pb.ts'
import { LimitService } from '../../../gen/marketplace/v1/limits_pb.ts'
import { UsageService } from '../../../gen/marketplace/v1/usage_pb.ts'
import type { CommandRow } from '../command-row.ts'

const audit = AuditService.method
const consumption = ConsumptionService.method
const events = EventService.method
const limits = LimitService.method
const usage = UsageService.method

/** What may be used, what was, and what is told of it. */
export const usageRows: readonly CommandRow[] = [
  {
    name: 'limits set',
    summary: 'set a limit, or replace it',
    method: limits.setLimit,
    resource: 'limit',
  },
  {
    name: 'limits list',
    summary: 'list limits',
    method: limits.listLimits,
    rows: {
      field: 'limits',
      columns: ['scope', 'subjectId', 'serviceId', 'name', 'amount', 'burst', 'currency'],
    },
  },
  {
    name: 'limits delete',
    summary: 'take a limit away',
    method: limits.deleteLimit,
    warning: 'Calls are no longer held by this limit.',
  },
  {
    name: 'limits show',
    summary: 'show every limit of a consumer at a service, and what is left of it',
    method: consumption.getQuota,
    positional: ['service_id'],
  },
  {
    name: 'usage list',
    summary: 'list usage records, the newest first',
    method: usage.listUsageRecords,
    rows: {
      field: 'usageRecords',
      columns: [
        'startTime',
        'requestId',
        'serviceId',
        'status',
        'usage.inputTokens',
        'usage.outputTokens',
        'durationMs',
      ],
    },
  },
  {
    name: 'usage stats',
    summary: 'sum up the usage of a service by a consumer',
    method: usage.getUsageStats,
    positional: ['service_id'],
  },
  {
    name: 'usage correct',
    summary: 'take a usage record back and book it anew',
    method: usage.correctUsageRecord,
    positional: ['record_id'],
    warning: 'The ledger is changed for good: a reversal and a rebooking are added.',
  },
  {
    name: 'audit list',
    summary: 'list what was changed and who was refused, the newest first',
    method: audit.listAuditRecords,
    rows: { field: 'records', columns: ['time', 'kind', 'action', 'actor', 'resource', 'reason', 'count'] },
  },
  {
    name: 'events sinks',
    summary: 'show where events go, and how far each is',
    method: events.listEventSinks,
    rows: {
      field: 'eventSinks',
      columns: ['name', 'position', 'behindCount', 'lag', 'waitingCount', 'deadLetterCount', 'failure'],
    },
  },
  {
    name: 'events dead-letters',
    summary: 'list events that a sink did not take',
    method: events.listDeadLetters,
    rows: { field: 'deadLetters', columns: ['position', 'type', 'subject', 'attempts', 'failure', 'deadTime'] },
  },
  {
    name: 'events replay',
    summary: 'send events again: dead letters, or all after a position',
    method: events.replayEvents,
    warning: 'The sink gets these events once more.',
  },
]
