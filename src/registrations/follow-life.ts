import { create, type DescMethod, getOption } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { access } from '../../gen/marketplace/v1/options_pb.ts'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import {
  ActivateServiceRequestSchema,
  DeprecateServiceRequestSchema,
  ResumeServiceRequestSchema,
  RetireServiceRequestSchema,
  SuspendServiceRequestSchema,
} from '../../gen/marketplace/v1/service_lifecycle_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { reachOf } from '../identity/principal.ts'
import type { Action } from '../registry/lifecycle.ts'
import { type StatedLife, type StepLeave, stepsTo } from '../registry/lifecycle-steps.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { findService, type SnapshotSource } from '../registry/snapshot.ts'

export interface FollowLifeOptions {
  readonly registry: Handlers<typeof Registry.method>
  readonly snapshots: SnapshotSource
  /** Unix milliseconds. */
  readonly now: () => number
}

/**
 * Brings a service to where its registration says that it stands, by the RPCs that are there for it. A successor that nobody
 * here knows is left out. Throws PERMISSION_MISSING when the caller may not do what that takes.
 */
export async function followStatedLife(
  { registry, snapshots, now }: FollowLifeOptions,
  service: ServiceRecord,
  stated: StatedLife,
  leave: StepLeave,
  call: Call,
): Promise<void> {
  const successor = stated.deprecation?.successor ?? ''
  const isKnown = successor !== '' && findService(snapshots.current(), successor) !== undefined
  const deprecation = stated.deprecation && { ...stated.deprecation, successor: isKnown ? successor : '' }
  for (const action of stepsTo(service, { ...stated, deprecation }, leave, now()).actions) {
    checkPermission(methods[action.kind], action.kind, call)
    await act(registry, service.id, action, call)
  }
}

/** Whether a caller may approve what it registers. */
export function mayApprove({ principal }: Call): boolean {
  return reachOf(principal, permissionOf(methods.activate)) !== undefined
}

const methods = {
  activate: Registry.method.activateService,
  deprecate: Registry.method.deprecateService,
  suspend: Registry.method.suspendService,
  resume: Registry.method.resumeService,
  retire: Registry.method.retireService,
} as const satisfies Record<Action['kind'], DescMethod>

async function act(registry: Handlers<typeof Registry.method>, id: string, action: Action, call: Call): Promise<void> {
  switch (action.kind) {
    case 'activate':
      await registry.activateService?.(create(ActivateServiceRequestSchema, { id }), call)
      return
    case 'deprecate': {
      const { sunsetAtMs, message, successor } = action
      const sunsetTime = sunsetAtMs === undefined ? undefined : timestampFromMs(sunsetAtMs)
      const asked = create(DeprecateServiceRequestSchema, { id, message, successor, ...(sunsetTime && { sunsetTime }) })
      await registry.deprecateService?.(asked, call)
      return
    }
    case 'suspend':
      await registry.suspendService?.(create(SuspendServiceRequestSchema, { id, reason: action.reason }), call)
      return
    case 'resume':
      await registry.resumeService?.(create(ResumeServiceRequestSchema, { id }), call)
      return
    case 'retire':
      await registry.retireService?.(create(RetireServiceRequestSchema, { id, reason: action.reason }), call)
  }
}

/** The permission of the call was that of a registration; what its status asks for may need another one. */
function checkPermission(method: DescMethod, kind: Action['kind'], { principal }: Call): void {
  const permission = permissionOf(method)
  if (reachOf(principal, permission) !== undefined) return
  const field = 'metadata.status'
  throw new TollgateError('PERMISSION_MISSING', `${field} asks to ${kind} the service, which needs ${permission}.`, {
    metadata: { field, permission },
  })
}

function permissionOf(method: DescMethod): string {
  return getOption(method, access).permission
}
