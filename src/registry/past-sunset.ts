import { type ServiceRecord, takesCalls } from './records.ts'
import type { Snapshot } from './snapshot.ts'

/**
 * Services that still take calls after the time at which they were to be retired. Nothing retires them by itself: calls that
 * fail at midnight because of a date that somebody wrote down months ago help nobody, and a service can be retired ahead of
 * that date as well. So somebody must see them here, and decide.
 */
export function pastSunset({ servicesById }: Snapshot, nowMs: number): ServiceRecord[] {
  return [...servicesById.values()].filter(({ status, deprecation }) => {
    return takesCalls(status) && deprecation?.sunsetAtMs !== undefined && deprecation.sunsetAtMs <= nowMs
  })
}
