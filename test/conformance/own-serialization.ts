/**
 * What stands in for Connect's protocol/serialization.js in the server of the conformance tests: the suites' messages hold
 * messages of any type, which JSON cannot say without a registry of the types. The gate's own hold none.
 */
import { createRegistry } from '@bufbuild/protobuf'
import * as real from '../../node_modules/@connectrpc/connect/dist/esm/protocol/serialization.js'
import { file_connectrpc_conformance_v1_service } from './gen/connectrpc/conformance/v1/service_pb.ts'

export * from '../../node_modules/@connectrpc/connect/dist/esm/protocol/serialization.js'

const registry = createRegistry(file_connectrpc_conformance_v1_service)

export const createMethodSerializationLookup: typeof real.createMethodSerializationLookup = (
  method,
  binaryOptions,
  jsonOptions,
  limits,
) => real.createMethodSerializationLookup(method, binaryOptions, { ...jsonOptions, registry }, limits)
