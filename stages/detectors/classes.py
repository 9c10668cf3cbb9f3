"""Names of classes: those that networks were trained on, and those that are no objects to remove."""

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,"
    "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = tuple(_COCO.split(","))

_CLOTHES = (
    "clothing,footwear,fashion accessory,shirt,dress,skirt,miniskirt,trousers,jeans,shorts,suit,coat,jacket,jersey,"
    "swimwear,brassiere,sock,glove,boxing glove,baseball glove,boot,sandal,high heels,roller skates,hat,sun hat,"
    "cowboy hat,fedora,sombrero,swim cap,crown,helmet,football helmet,bicycle helmet,tie,scarf,belt,glasses,"
    "sunglasses,goggles,necklace,earrings,watch,tiara"
)
_BODY = (
    "human body,human head,human face,human eye,human ear,human nose,human mouth,human hair,human beard,human hand,"
    "human arm,human leg,human foot"
)
NOT_OBJECTS = tuple(f"{_CLOTHES},{_BODY}".split(","))
"""Classes that `detect` excludes by default: clothes and parts of bodies, in the words of Open Images and COCO.

Nobody removes a shirt and keeps its wearer. RORem (arXiv 2501.00740) leaves out "classes such as clothes and body
parts" and does not list them; bags, umbrellas and backpacks stay in, as they also stand alone."""
