import { type DescExtension, type DescFile, type DescService, toBinary } from '@bufbuild/protobuf'
import { nestedTypes } from '@bufbuild/protobuf/reflect'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { file_google_rpc_error_details } from '../../gen/google/rpc/error_details_pb.ts'
import { ServerReflection as ServerReflectionV1 } from '../../gen/grpc/reflection/v1/reflection_pb.ts'
import { ServerReflection as ServerReflectionV1alpha } from '../../gen/grpc/reflection/v1alpha/reflection_pb.ts'
import { register, type ServiceRegistration } from './rpc.ts'

/**
 * Server reflection v1 and v1alpha over the descriptors of the given services, of reflection itself, of everything
 * that they import, and of the error details. https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
 */
export function createReflection(services: readonly DescService[]): ServiceRegistration[] {
  const index = createIndex([...services, ServerReflectionV1, ServerReflectionV1alpha])
  // The two versions have the same messages under different names.
  const serverReflectionInfo = async function* <R extends Request>(requests: AsyncIterable<R>) {
    for await (const request of requests) {
      yield { validHost: request.host, originalRequest: request, messageResponse: answer(index, request) }
    }
  }
  const options = { public: true, longLived: true }
  return [
    register(ServerReflectionV1, { serverReflectionInfo }, options),
    register(ServerReflectionV1alpha, { serverReflectionInfo }, options),
  ]
}

/** What a request of either version is. */
interface Request {
  readonly host: string
  readonly messageRequest:
    | {
        readonly case: 'listServices' | 'fileByFilename' | 'fileContainingSymbol' | 'allExtensionNumbersOfType'
        readonly value: string
      }
    | {
        readonly case: 'fileContainingExtension'
        readonly value: { readonly containingType: string; readonly extensionNumber: number }
      }
    | { readonly case: undefined; readonly value?: undefined }
}

interface Index {
  readonly services: readonly string[]
  readonly files: ReadonlyMap<string, DescFile>
  /** Messages, enums, services and extensions, by full name. */
  readonly symbols: ReadonlyMap<string, DescFile>
  readonly extensions: readonly DescExtension[]
}

function createIndex(services: readonly DescService[]): Index {
  const files = new Map<string, DescFile>()
  // No contract imports the error details, yet every refusal carries them: clients ask for them to show them in words.
  const roots = [...services.map((service) => service.file), file_google_rpc_error_details]
  for (const root of roots) for (const file of withImports(root)) files.set(file.proto.name, file)
  const symbols = new Map<string, DescFile>()
  const extensions: DescExtension[] = []
  for (const file of files.values()) {
    for (const type of nestedTypes(file)) {
      symbols.set(type.typeName, file)
      if (type.kind === 'extension') extensions.push(type)
    }
  }
  return { services: services.map((service) => service.typeName), files, symbols, extensions }
}

function answer(index: Index, { messageRequest }: Request) {
  switch (messageRequest.case) {
    case 'listServices':
      return { case: 'listServicesResponse' as const, value: { service: index.services.map((name) => ({ name })) } }
    case 'fileByFilename':
      return fileAnswer(index.files.get(messageRequest.value), `file ${messageRequest.value}`)
    case 'fileContainingSymbol':
      return fileAnswer(fileOfSymbol(index, messageRequest.value), `symbol ${messageRequest.value}`)
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = messageRequest.value
      const found = index.extensions.find(
        ({ extendee, number }) => extendee.typeName === containingType && number === extensionNumber,
      )
      return fileAnswer(found?.file, `extension ${extensionNumber} of ${containingType}`)
    }
    case 'allExtensionNumbersOfType': {
      const baseTypeName = messageRequest.value
      if (!index.symbols.has(baseTypeName)) return notFound(`type ${baseTypeName}`)
      const ofType = index.extensions.filter(({ extendee }) => extendee.typeName === baseTypeName)
      const extensionNumber = ofType.map(({ number }) => number)
      return { case: 'allExtensionNumbersResponse' as const, value: { baseTypeName, extensionNumber } }
    }
    default:
      return errorAnswer(3, 'the request asks for nothing')
  }
}

/** Methods, fields and enum values are found by what contains them. */
function fileOfSymbol({ symbols }: Index, name: string): DescFile | undefined {
  return symbols.get(name) ?? symbols.get(name.slice(0, Math.max(0, name.lastIndexOf('.'))))
}

function fileAnswer(file: DescFile | undefined, asked: string) {
  if (file === undefined) return notFound(asked)
  const fileDescriptorProto = withImports(file).map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto))
  return { case: 'fileDescriptorResponse' as const, value: { fileDescriptorProto } }
}

function notFound(asked: string) {
  return errorAnswer(5, `${asked.slice(0, 256)} is not known here`)
}

/** An error inside the stream, with a code of google.rpc.Code; the stream goes on. */
function errorAnswer(errorCode: number, errorMessage: string) {
  return { case: 'errorResponse' as const, value: { errorCode, errorMessage } }
}

/** The file first, then everything that it imports, directly or not, each once. */
function withImports(file: DescFile): DescFile[] {
  const found = new Map([[file.proto.name, file]])
  for (const each of found.values()) for (const imported of each.dependencies) found.set(imported.proto.name, imported)
  return [...found.values()]
}
