import type { Settled } from '../limits/limits.ts'
import { unitName } from '../limits/unit-name.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { QuotaThreshold } from './event.ts'

/** The event of a call by which a month's use passed a threshold. */
export function thresholdEvent(
  event: UsageEvent,
  { limit, used, threshold }: Settled['crossed'][number],
): QuotaThreshold {
  const { organizationId, consumerId, keyId, serviceId, requestId } = event
  return {
    type: 'quota_threshold',
    organizationId,
    consumerId,
    keyId,
    serviceId,
    requestId,
    subject: limit.subject,
    limit: limit.name,
    unit: unitName(limit),
    capacity: limit.capacity,
    used,
    threshold,
    periodEndMs: limit.endsAtMs,
  }
}
