import { create, type JsonObject, toJson } from '@bufbuild/protobuf'
import { CodeSchema } from '../../../gen/google/rpc/code_pb.ts'
import { reasons, type TollgateError } from '../../errors.ts'
import { toConnectError } from '../connect-error.ts'

/**
 * An error as Google's APIs write it over HTTP (https://google.aip.dev/193): the HTTP status as `code`, the name of the gRPC
 * status, the message, and the same `google.rpc` details as on every other wire.
 */
export function errorBody(error: TollgateError, httpStatus: number): { readonly error: JsonObject } {
  const { rawMessage, details } = toConnectError(error)
  return {
    error: {
      code: httpStatus,
      message: rawMessage,
      status: CodeSchema.value[reasons[error.reason].grpc]?.name ?? 'UNKNOWN',
      details: details.map((detail) => {
        if (!('desc' in detail)) throw new Error(`${detail.type} is no detail of ours`)
        const json = toJson(detail.desc, create(detail.desc, detail.value))
        return { '@type': `type.googleapis.com/${detail.desc.typeName}`, ...asObject(json) }
      }),
    },
  }
}

function asObject(json: ReturnType<typeof toJson>): JsonObject {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error('a detail is no JSON object')
  return json
}
