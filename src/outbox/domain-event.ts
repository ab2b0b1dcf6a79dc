import type { JsonValue } from '@bufbuild/protobuf'
import type { LoggedChange } from '../control/change-log.ts'

/**
 * A change of the control plane as others are told of it: CloudEvents 1.0,
 * https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, with the extensions `partitionkey` and `sequence`.
 */
export interface DomainEvent {
  readonly specversion: '1.0'
  /** The change's own: the same however often it is delivered. */
  readonly id: string
  readonly source: string
  /** Such as "tollgate.service.updated". */
  readonly type: string
  /** Kind and id of the resource, such as "service/0193…". Events of one subject are in order. */
  readonly subject: string
  readonly time: string
  readonly partitionkey: string
  /** Position of the change, with leading zeros: sorts as text. Rises for each subject, with gaps. */
  readonly sequence: string
  readonly datacontenttype: 'application/json'
  readonly data: {
    readonly position: number
    /** Subject of whoever made the change. */
    readonly actor: string
    readonly requestId: string
    /** The resource after the change, as JSON of its message; null when it is gone. */
    readonly resource: JsonValue
  }
}

/** A change in the form in which it goes out. */
export function toDomainEvent(change: LoggedChange, source: string): DomainEvent {
  const { id, type, position, actor, requestId, resource, createdAtMs } = change
  const subject = subjectOf(change)
  return {
    specversion: '1.0',
    id,
    source,
    type: `tollgate.${type}`,
    subject,
    time: new Date(createdAtMs).toISOString(),
    partitionkey: subject,
    sequence: String(position).padStart(19, '0'),
    datacontenttype: 'application/json',
    data: { position, actor, requestId, resource },
  }
}

/** What events are in order of. */
export function subjectOf({ resourceKind, resourceId }: Pick<LoggedChange, 'resourceKind' | 'resourceId'>): string {
  return `${resourceKind}/${resourceId}`
}

/** Of an event that stands as one JSON document, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md. */
export const cloudEventContentType = 'application/cloudevents+json; charset=UTF-8'
