import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { ServiceRecord } from '../registry/records.ts'

/** What ends a call at its backend. */
export interface BackendSignal {
  readonly signal: AbortSignal
  /** To be called when the call is over. */
  release(): void
}

/**
 * The signal for a call's backend. With the policy `cancel` it is the call's own. With `drain`, a caller that went away does
 * not end the call: it goes on until the service's limit or the call's deadline, whichever comes first, so that its usage
 * becomes known. Deadlines and the end of the drain window end it in any case, and so does `closing`.
 */
export function backendSignal(
  call: Pick<Call, 'signal' | 'deadlineMs'>,
  service: Pick<ServiceRecord, 'onDisconnect' | 'drainLimitMs'>,
  closing: AbortSignal,
  now: () => number,
): BackendSignal {
  if (service.onDisconnect === 'cancel') return { signal: call.signal, release: () => {} }
  const ending = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const end = (): void => ending.abort(call.signal.reason)
  const onAbort = (): void => {
    const { reason } = call.signal
    const hasLeft = !(reason instanceof TollgateError) || reason.reason === 'CANCELLED'
    const leftMs = call.deadlineMs - now()
    if (hasLeft) timer = setTimeout(end, Math.max(0, Math.min(service.drainLimitMs ?? leftMs, leftMs)))
    else end()
  }
  const onClosing = (): void => ending.abort(closing.reason)
  if (call.signal.aborted) onAbort()
  else call.signal.addEventListener('abort', onAbort)
  closing.addEventListener('abort', onClosing)
  return {
    signal: ending.signal,
    release() {
      clearTimeout(timer)
      call.signal.removeEventListener('abort', onAbort)
      closing.removeEventListener('abort', onClosing)
    },
  }
}
