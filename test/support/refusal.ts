import { ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'

/** What the caller of a refused call was told. */
export interface Refusal {
  readonly code: number
  readonly reason: string | undefined
  readonly message: string
  readonly metadata: Readonly<Record<string, string>> | undefined
  /** The fields at fault. */
  readonly fields: readonly { readonly field: string; readonly description: string }[]
}

/** Waits for a call that must be refused; fails with code 2 and without a reason when it was not. */
export async function refusal(call: Promise<unknown>): Promise<Refusal> {
  const error = ConnectError.from(
    await call.then(
      () => new Error('it was not refused'),
      (thrown: unknown) => thrown,
    ),
  )
  const [info] = error.findDetails(ErrorInfoSchema)
  const fields = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations)
  return { code: error.code, reason: info?.reason, message: error.rawMessage, metadata: info?.metadata, fields }
}
