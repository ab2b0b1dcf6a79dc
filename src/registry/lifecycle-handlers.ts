import type { DescMethodUnary } from '@bufbuild/protobuf'
import { timestampMs } from '@bufbuild/protobuf/wkt'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Call, Handlers } from '../call.ts'
import type { Sql } from '../storage/postgres.ts'
import { changeService } from './change-service.ts'
import { type Action, pastOf, transition } from './lifecycle.ts'
import { invalid } from './price-message.ts'
import type { ServiceRecord } from './records.ts'
import { shownService } from './service-access.ts'
import type { ServiceLookup } from './service-lookup.ts'
import type { ServiceFields } from './service-message.ts'
import type { SnapshotSource } from './snapshot.ts'

export interface LifecycleHandlersOptions {
  readonly sql: Sql
  readonly snapshots: Pick<SnapshotSource, 'refresh'>
  readonly serviceOf: ServiceLookup
  /** True while an outside registry states services here. */
  readonly followsRegistry: boolean
  /** Unix milliseconds. */
  readonly now: () => number
}

type LifecycleMethod = 'activateService' | 'deprecateService' | 'suspendService' | 'resumeService' | 'retireService'

/** The RPCs of marketplace.v1.Registry that move a service through its life. */
export function createLifecycleHandlers(
  options: LifecycleHandlersOptions,
): Pick<Handlers<typeof Registry.method>, LifecycleMethod> {
  const { sql, snapshots, serviceOf, followsRegistry, now } = options

  async function move(
    method: DescMethodUnary,
    { id, etag }: { readonly id: string; readonly etag: string },
    action: Action,
    call: Call,
  ): Promise<ServiceFields> {
    const nowMs = now()
    const changed = await changeService(
      sql,
      call,
      {
        id,
        field: 'id',
        etag,
        etagField: 'etag',
        method,
        followsRegistry,
        type: pastOf[action.kind],
        reason: 'reason' in action ? action.reason : '',
        apply: (service) => {
          checkSuccessor(service, action)
          return { ...service, ...transition(service, action, nowMs) }
        },
      },
      nowMs,
    )
    await snapshots.refresh()
    return shownService(changed, call.principal, nowMs)
  }

  /** Id of the service that takes another one's place: it has to be there. */
  async function checkKnown(successor: string): Promise<void> {
    if (successor !== '') await serviceOf(successor, 'successor')
  }

  return {
    activateService: (request, call) => move(Registry.method.activateService, request, { kind: 'activate' }, call),

    async deprecateService(request, call) {
      const { message, successor, sunsetTime } = request
      await checkKnown(successor)
      const sunsetAtMs = sunsetTime && timestampMs(sunsetTime)
      const action = { kind: 'deprecate', sunsetAtMs, message, successor } as const
      return move(Registry.method.deprecateService, request, action, call)
    },

    suspendService: (request, call) =>
      move(Registry.method.suspendService, request, { kind: 'suspend', reason: request.reason }, call),

    resumeService: (request, call) => move(Registry.method.resumeService, request, { kind: 'resume' }, call),

    async retireService(request, call) {
      const { reason, successor } = request
      await checkKnown(successor)
      return move(Registry.method.retireService, request, { kind: 'retire', reason, successor }, call)
    },
  }
}

function checkSuccessor({ id, name, version }: ServiceRecord, action: Action): void {
  const successor = 'successor' in action ? action.successor : ''
  if (successor === id || successor === `${name}@${version}`) {
    throw invalid('successor', 'must be another service', 'other')
  }
}
